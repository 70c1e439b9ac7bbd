"""Answers of the hot endpoints: two ASGI messages, no response object between."""

from typing import Any

import orjson
from starlette.types import Send

from service.classifier import Timing

JSON_HEADERS = [(b"content-type", b"application/json")]


def json_bytes(payload: Any) -> bytes:
    return orjson.dumps(payload)


async def send_json(send: Send, payload: Any, timing: Timing) -> None:
    """200 with `payload`; what the request cost stands in the standard Server-Timing header, in milliseconds."""
    body = json_bytes(payload)
    headers = [*JSON_HEADERS, (b"content-length", b"%d" % len(body)), (b"server-timing", _server_timing(timing))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _server_timing(timing: Timing) -> bytes:
    return b"decode;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f, batch;desc=%d" % (
        timing.decode_s * 1000,
        timing.queue_s * 1000,
        timing.compute_s * 1000,
        timing.batch_size,
    )
