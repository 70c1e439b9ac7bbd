"""Answers of the hot endpoints: two ASGI messages, no response object between."""

from typing import Any

import orjson
from starlette.types import Send

from service.observability.stage_timings import StageTimings

Headers = list[tuple[bytes, bytes]]
JSON_HEADERS: Headers = [(b"content-type", b"application/json")]


def json_bytes(payload: Any) -> bytes:
    return orjson.dumps(payload)


async def send_answer(send: Send, body: bytes, timings: StageTimings, headers: Headers) -> None:
    """200 with the body; what the request cost stands in the standard Server-Timing header, in milliseconds."""
    headers = [*headers, (b"content-length", b"%d" % len(body)), _server_timing(timings)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _server_timing(timings: StageTimings) -> tuple[bytes, bytes]:
    """The header: milliseconds of each stage, and the size of the batch that the request rode in."""
    return b"server-timing", b"decode;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f, batch;desc=%d" % (
        timings.decode_s * 1000,
        timings.queue_s * 1000,
        timings.compute_s * 1000,
        timings.batch_size,
    )
