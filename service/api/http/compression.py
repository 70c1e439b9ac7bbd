"""Content-Encoding both ways, gzip and deflate, for the protocols whose clients use it."""

import asyncio
import zlib

from starlette.types import Receive, Scope

from service.api.http.body import read_body
from service.api.http.request_headers import header
from service.api.http.responses import Headers
from service.errors import BadRequest, BodyTooLarge, UnsupportedBody

# zlib's window bits: 16 more than the window means gzip. Of what a client likes equally, the first is taken.
WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
LEVEL = 1  # the fastest: the answers are numbers, which hardly compress better at higher levels
WORTH_BYTES = 1024
IN_THREAD_BYTES = 65536  # a millisecond of work, which need not hold up the event loop
HINT = "Compress the whole body once, with gzip or deflate (zlib's form), or send it as it is."


async def read_unpacked(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body without its Content-Encoding.

    Raises UnsupportedBody, BadRequest, ClientGone, or BodyTooLarge: never more than `limit_bytes` are unpacked.
    """
    body = await read_body(scope, receive, limit_bytes)
    encoding = header(scope, b"content-encoding").strip().lower()
    if not encoding or encoding == b"identity":
        return body
    if encoding not in WINDOWS:
        shown = encoding.decode("latin-1")
        raise UnsupportedBody(f"The Content-Encoding '{shown}' cannot be read; gzip and deflate can.", HINT)
    # In a thread however small it is: a thousandth of the limit can unpack to all of it.
    return await asyncio.to_thread(_unpacked, body, encoding, limit_bytes)


async def packed(scope: Scope, body: bytes) -> tuple[bytes, Headers]:
    """The body as the client's Accept-Encoding likes it, and the headers that say so."""
    if len(body) < WORTH_BYTES:
        return body, []
    encoding = negotiate_encoding(header(scope, b"accept-encoding"))
    if encoding is None:
        return body, []
    in_thread = len(body) > IN_THREAD_BYTES
    small = await asyncio.to_thread(_packed, body, encoding) if in_thread else _packed(body, encoding)
    return small, [(b"content-encoding", encoding), (b"vary", b"accept-encoding")]


def _unpacked(body: bytes, encoding: bytes, limit_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(WINDOWS[encoding])
    try:
        data = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is not valid {encoding.decode()}: {error}.", HINT) from None
    if len(data) > limit_bytes:
        raise BodyTooLarge(f"The unpacked body is larger than {limit_bytes} bytes.")
    if not unpacker.eof:
        raise BadRequest(f"The {encoding.decode()} body is cut off.", HINT)
    if unpacker.unused_data:
        raise BadRequest(f"The {encoding.decode()} body goes on after its end.", HINT)
    return data


def _packed(body: bytes, encoding: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOWS[encoding])
    return packer.compress(body) + packer.flush()


def negotiate_encoding(accepted: bytes) -> bytes | None:
    """The encoding of the greatest weight in an Accept-Encoding (RFC 9110, 12.5.3); None where plain is liked more."""
    weights: dict[bytes, float] = {}
    for part in accepted.lower().split(b","):
        name, _, parameter = part.partition(b";")
        weights[name.strip()] = _weight(parameter)
    others = weights.get(b"*", 0.0)
    liked = max(WINDOWS, key=lambda encoding: weights.get(encoding, others))
    weight = weights.get(liked, others)
    return liked if weight > 0 and weight >= weights.get(b"identity", 0.0) else None


def _weight(parameter: bytes) -> float:
    name, _, value = parameter.strip().partition(b"=")
    if name != b"q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
