"""Compresses the text responses of routes other than those for images and tensors: metrics, lists of models,
OpenAPI."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.http.compression import MIN_COMPRESSED_BYTES, compress_body
from service.api.http.responses import Headers

COMPRESSED_TYPES = (b"application/json", b"text/")
VARY = (b"vary", b"accept-encoding")


class CompressedResponses:
    """Plain ASGI around the router. Does not compress small responses, streamed ones, and files with an ETag."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_compressible(message):
                start = message
                return
            if start is not None:
                started, start = start, None
                if not message.get("more_body"):
                    await _compress(scope, started, message)
                await send(started)
            await send(message)

        await self._app(scope, receive, send_compressed)


def _is_compressible(start: Message) -> bool:
    headers = dict(start["headers"])
    is_text = headers.get(b"content-type", b"").startswith(COMPRESSED_TYPES)
    return is_text and b"etag" not in headers and b"content-encoding" not in headers


async def _compress(scope: Scope, start: Message, message: Message) -> None:
    """Replaces the body and adds the headers in place, if the client accepts an encoding."""
    if len(message.get("body", b"")) < MIN_COMPRESSED_BYTES:
        return
    body, encoding = await compress_body(scope, message["body"])
    kept: Headers = [header for header in start["headers"] if header[0] != b"content-length"]
    message["body"] = body
    added = [header for header in encoding if header != VARY]
    start["headers"] = [*kept, (b"content-length", b"%d" % len(body)), VARY, *added]
