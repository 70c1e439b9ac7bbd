"""Sends responses as plain ASGI messages, without Starlette's response objects. Also has the JSON headers and the
security headers of web pages."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.types import Send

from service.classification.request_context import RequestContext
from service.observability.stage_timings import StageTimings

Headers = list[tuple[bytes, bytes]]
Body = bytes | list[bytes]
"""A response body. Large bodies are lists of pieces."""
PIECE_BYTES = 1 << 18
"""Bytes of a large response that the connection buffers before it waits for the client."""
JSON_HEADERS: Headers = [(b"content-type", b"application/json")]

# Pages load nothing from other origins, and no other page may put them into a frame.
CONTENT_SECURITY_POLICY = (
    b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'"
)
SECURITY_HEADERS: Headers = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
PAGE_TYPES = (b"text/html", b"text/css", b"text/javascript", b"application/javascript", b"image/")


def json_bytes(payload: Any) -> bytes:
    return orjson.dumps(payload)


async def send_response(send: Send, body: Body, context: RequestContext, headers: Headers) -> None:
    """Sends status 200 and the body, in one ASGI message if it is small. `Model-Digest` identifies the content of the
    version."""
    digest = (b"model-digest", context.loaded.digest.encode())
    headers = [*headers, (b"content-length", b"%d" % body_length(body)), digest, _server_timing(context.timings)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if isinstance(body, bytes) and len(body) <= PIECE_BYTES:
        await send({"type": "http.response.body", "body": body})
        return
    pending_bytes = 0
    for piece in _pieces(body):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        pending_bytes += len(piece)
        if pending_bytes >= PIECE_BYTES:  # lets the event loop send; only then does `send` wait for a slow client
            await asyncio.sleep(0)
            pending_bytes = 0
    await send({"type": "http.response.body", "body": b""})


def body_length(body: Body) -> int:
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


def _pieces(body: Body) -> Iterator[bytes]:
    for part in [body] if isinstance(body, bytes) else body:
        yield from (part[at : at + PIECE_BYTES] for at in range(0, len(part), PIECE_BYTES))


def _server_timing(timings: StageTimings) -> tuple[bytes, bytes]:
    """Returns the header with the milliseconds of each stage, and the size of the batch that the images were in."""
    return b"server-timing", b"decode;dur=%.3f, queue;dur=%.3f, compute;dur=%.3f, batch;desc=%d" % (
        timings.decode_s * 1000,
        timings.queue_s * 1000,
        timings.compute_s * 1000,
        timings.batch_size,
    )


def with_path_only_location(headers: Headers) -> Headers:
    """Returns the headers of a redirect to this service, without scheme and host in `Location` (RFC 9110, 10.2.2).

    The host in the request may be the proxy's name for this service. nginx replaces an absolute address that begins
    with that name, and so doubles the root path.
    """
    return [(name, _path_only(value) if name == b"location" else value) for name, value in headers]


def _path_only(address: bytes) -> bytes:
    parts = urlsplit(address)
    path = b"/" + parts.path.lstrip(b"/")  # two slashes would begin a host
    return path + b"?" + parts.query if parts.query else path


def missing_security_headers(headers: Headers) -> Headers:
    """Returns the security headers that a page or a file of a page lacks; an empty list for any other response."""
    present = dict(headers)
    if not present.get(b"content-type", b"").startswith(PAGE_TYPES):
        return []
    return [header for header in SECURITY_HEADERS if header[0] not in present]
