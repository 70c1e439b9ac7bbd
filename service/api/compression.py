"""Content-Encoding both ways, gzip and deflate, for the protocols whose clients use it."""

import zlib

from starlette.types import Scope

from service.api.body import header
from service.errors import BadRequest, BodyTooLarge, UnsupportedBody

# zlib's window bits: 16 more than the window means gzip.
WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
LEVEL = 1  # the fastest: the answers are numbers, which hardly compress better at higher levels
WORTH_BYTES = 1024


def unpacked(scope: Scope, body: bytes, limit_bytes: int) -> bytes:
    """The body without its Content-Encoding. Raises UnsupportedBody, BadRequest, or BodyTooLarge: never more than
    `limit_bytes` are unpacked."""
    encoding = header(scope, b"content-encoding").strip().lower()
    if not encoding or encoding == b"identity":
        return body
    if encoding not in WINDOWS:
        raise UnsupportedBody(f"Content-Encoding '{encoding.decode('latin-1')}' is not read; gzip and deflate are.")
    unpacker = zlib.decompressobj(WINDOWS[encoding])
    try:
        data = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is not valid {encoding.decode()}: {error}.") from None
    if len(data) > limit_bytes:
        raise BodyTooLarge(f"The unpacked body is larger than {limit_bytes} bytes.")
    if not unpacker.eof:
        raise BadRequest(f"The {encoding.decode()} body is cut off.")
    return data


def packed(scope: Scope, body: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body as the client's Accept-Encoding likes it, and the headers that say so."""
    if len(body) < WORTH_BYTES:
        return body, []
    accepted = header(scope, b"accept-encoding").lower()
    for encoding, window in WINDOWS.items():
        if encoding in accepted:
            packer = zlib.compressobj(LEVEL, zlib.DEFLATED, window)
            return packer.compress(body) + packer.flush(), [(b"content-encoding", encoding)]
    return body, []
