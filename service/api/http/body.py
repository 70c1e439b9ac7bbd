"""Request bodies, bounded: the whole of it as bytes, or the files of a multipart form."""

import math
from collections.abc import AsyncGenerator

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive, Scope

from service.api.http.errors import ClientGone
from service.api.http.request_headers import content_length, header
from service.errors import BadRequest, BodyTooLarge

MULTIPART = b"multipart/form-data"
BODY_ERROR = "convoy.body_error"
"""Where in a request's scope stands why no more of its body will come; who waits for it is woken."""

SAMPLES, SAMPLED_BYTES = 16, 512
CAUTION = 0.9


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body. Raises BodyTooLarge, before reading where the length is announced, SlowRequest, BadHttp or
    ClientGone."""
    if content_length(scope) > limit_bytes:
        raise _too_large(limit_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return _within(body, limit_bytes)
    parts: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body"):
            return b"".join(parts)
        if BODY_ERROR in scope:
            raise scope[BODY_ERROR]
        message = await receive()
    raise ClientGone


def images_about(content_type: bytes, body: bytes) -> int:
    """How many images a batch holds, in a thousandth of the time that reading it takes; seldom wrong, by chance."""
    return body.count(b"filename=" if content_type.startswith(MULTIPART) else b'"data"')


def tensors_about(body: bytes, shape: tuple[int, int, int]) -> int:
    """About how many images of that shape a body of JSON tensors holds, rather too few; 1 for other bodies.

    From the commas of a sixteenth of it: counting all of them takes a tenth of the time that a refusal should save.
    """
    pixels = math.prod(shape)
    if len(body) < 4 * pixels:
        return 1
    step = max(SAMPLED_BYTES, len(body) // SAMPLES)
    commas = sum(body.count(b",", at, at + SAMPLED_BYTES) for at in range(0, len(body), step))
    return max(1, int(CAUTION * commas * step / SAMPLED_BYTES) // pixels)


async def files_of(content_type: bytes, body: bytes, field: str, most: int) -> list[tuple[str, bytes]]:
    """File name and bytes of each file in the multipart form's `field`, in order. Raises BadRequest."""
    headers = Headers(raw=[(b"content-type", _in_utf8(content_type))])
    parser = MultiPartParser(headers, _once(body), max_files=most, max_fields=most)
    parser.spool_max_size = len(body) + 1  # never to disk: the root file system may be read-only
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadRequest(f"The multipart body cannot be read: {error.message}") from error
    try:
        files = [value for value in form.getlist(field) if isinstance(value, UploadFile)]
        if not files:
            raise BadRequest(f"The multipart body has no file in a field named '{field}'.")
        return [(file.filename or "", await file.read()) for file in files]
    finally:
        await form.close()


async def image_of(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """One encoded image: the raw body, or the `file` of a multipart form. Raises as above."""
    body = await read_body(scope, receive, limit_bytes)
    content_type = header(scope, b"content-type")
    if not content_type.startswith(MULTIPART):
        return body
    files = await files_of(content_type, body, "file", 1)
    return files[0][1]


def _in_utf8(content_type: bytes) -> bytes:
    """A form's type with its boundary only: names in forms are UTF-8 (RFC 7578, 5.1.2), and Starlette would decode them
    with any codec of Python's that the client names, some of which fail in their own ways."""
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        return MULTIPART
    return b'%s; boundary="%s"' % (MULTIPART, options[b"boundary"].replace(b"\\", b"\\\\").replace(b'"', b'\\"'))


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _within(body: bytes, limit_bytes: int) -> bytes:
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return body


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit_bytes} bytes.")
