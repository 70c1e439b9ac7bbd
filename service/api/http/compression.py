"""Decompresses request bodies and compresses responses, with gzip or deflate, as the headers specify."""

import asyncio
import zlib

from starlette.types import Scope

from service.api.http.request_headers import header
from service.api.http.responses import Body, Headers, body_length
from service.errors import BadRequest, BodyTooLarge, UnsupportedBody

# zlib's window bits; adding 16 selects gzip. If encodings have equal weights, the first one is used.
WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
ALIASES = {b"x-gzip": b"gzip"}  # RFC 9110, 8.4.1.3
COMPRESSION_LEVEL = 1  # the fastest, because responses are numbers, which hardly compress better at higher levels
MIN_COMPRESSED_BYTES = 1024
MAX_INLINE_BYTES = 65536  # about a millisecond of work; larger bodies are compressed in a thread
MAX_RATIO = 100
"""Maximum ratio of a body's size to its compressed size, for bodies of more than MAX_FREE_BYTES. MNIST images in JSON
reach 20. Without a limit, a slow connection could keep the service busy: 16 KB can decompress to 16 MB."""
MAX_FREE_BYTES = 1 << 20
HINT = "Compress the whole body once, with gzip or deflate (in zlib's format), or send it uncompressed."


async def compress_body(scope: Scope, body: Body) -> tuple[Body, Headers]:
    """Returns the body in the encoding that the client's Accept-Encoding prefers, and the headers for it."""
    size = body_length(body)
    if size < MIN_COMPRESSED_BYTES:
        return body, []
    encoding = negotiate_encoding(header(scope, b"accept-encoding"))
    if encoding is None:
        return body, []
    in_thread = size > MAX_INLINE_BYTES
    compressed = await asyncio.to_thread(_compress, body, encoding) if in_thread else _compress(body, encoding)
    return compressed, [(b"content-encoding", encoding), (b"vary", b"accept-encoding")]


def content_encoding(scope: Scope) -> bytes:
    """Returns the Content-Encoding from all headers of this name, in lower case; empty for none and for identity."""
    if not header(scope, b"content-encoding"):
        return b""
    values = b",".join(value for name, value in scope["headers"] if name == b"content-encoding")
    names = [name for name in map(bytes.strip, values.lower().split(b",")) if name not in (b"", b"identity")]
    return b", ".join(ALIASES.get(name, name) for name in names)


def decompress(body: bytes, encoding: bytes, limit_bytes: int) -> bytes:
    """Returns the body without its Content-Encoding.

    Decompresses at most `limit_bytes`, and at most MAX_RATIO times the size of the body; raises BodyTooLarge above
    that. Also raises UnsupportedBody or BadRequest.
    """
    if encoding not in WINDOW_BITS:
        name = encoding.decode("latin-1")
        raise UnsupportedBody(f"The Content-Encoding '{name}' is not supported; use gzip or deflate.", HINT)
    decompressor = zlib.decompressobj(WINDOW_BITS[encoding])
    most_bytes = min(limit_bytes, max(MAX_FREE_BYTES, MAX_RATIO * len(body)))
    try:
        data = decompressor.decompress(body, most_bytes + 1)
    except zlib.error:
        raise BadRequest(f"The body is not valid {encoding.decode()}.", HINT) from None
    if len(data) > most_bytes < limit_bytes:
        message = f"The decompressed body is larger than {most_bytes} bytes, {MAX_RATIO} times the compressed one."
        raise BodyTooLarge(message, "Send the body uncompressed, without a Content-Encoding.")
    if len(data) > limit_bytes:
        raise BodyTooLarge(f"The decompressed body is larger than {limit_bytes} bytes.")
    if not decompressor.eof:
        raise BadRequest(f"The {encoding.decode()} body is cut off.", HINT)
    if decompressor.unused_data:
        raise BadRequest(f"The {encoding.decode()} body is followed by other bytes.", HINT)
    return data


def _compress(body: Body, encoding: bytes) -> bytes:
    compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, WINDOW_BITS[encoding])
    parts = [body] if isinstance(body, bytes) else body
    return b"".join([*map(compressor.compress, parts), compressor.flush()])


def negotiate_encoding(accepted: bytes) -> bytes | None:
    """Returns the encoding with the greatest weight in an Accept-Encoding (RFC 9110, 12.5.3); None for no encoding."""
    weights: dict[bytes, float] = {}
    for part in accepted.lower().split(b","):
        name, _, parameter = part.partition(b";")
        weights[ALIASES.get(name.strip(), name.strip())] = _weight(parameter)
    default = weights.get(b"*", 0.0)
    preferred = max(WINDOW_BITS, key=lambda encoding: weights.get(encoding, default))
    weight = weights.get(preferred, default)
    return preferred if weight > 0 and weight >= weights.get(b"identity", 0.0) else None


def _weight(parameter: bytes) -> float:
    name, _, value = parameter.strip().partition(b"=")
    if name != b"q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
