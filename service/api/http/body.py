"""Request bodies of limited size: as bytes, or as the files of a multipart form."""

import math
from collections.abc import AsyncGenerator

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive, Scope

from service.api.http.request_headers import content_length, header
from service.api.http.status_codes import ClientDisconnected
from service.errors import BadRequest, BodyTooLarge

MULTIPART = b"multipart/form-data"
BODY_ERROR = "convoy.body_error"
"""Key of the scope under which the server stores the error that ended the body early, before it wakes the reader."""

SAMPLE_COUNT, SAMPLE_BYTES = 16, 512
SAFETY_FACTOR = 0.9


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """Returns the whole body.

    Raises BodyTooLarge (before reading, if Content-Length says so), SlowRequest, BadHttp or ClientDisconnected.
    """
    if content_length(scope) > limit_bytes:
        raise _too_large(limit_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        _check_size(body, limit_bytes)
        return body
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body"):
            return b"".join(chunks)
        if BODY_ERROR in scope:
            raise scope[BODY_ERROR]
        message = await receive()
    raise ClientDisconnected


def estimate_image_count(content_type: bytes, body: bytes) -> int:
    """Estimates the number of images by counting part markers, about 1000 times faster than parsing.

    Wrong only if image data contains the marker.
    """
    return body.count(b"filename=" if content_type.startswith(MULTIPART) else b'"data"')


def estimate_tensor_count(body: bytes, shape: tuple[int, int, int]) -> int:
    """Estimates the number of images of that shape in a body of JSON tensors; 1 for other bodies.

    Deliberately an underestimate: rejecting a request that would have succeeded is worse than queueing one that is
    rejected later. Counts the commas of a sample only, because counting all of them takes a tenth of the parsing time.
    """
    pixels = math.prod(shape)
    if len(body) < 4 * pixels:
        return 1
    step = max(SAMPLE_BYTES, len(body) // SAMPLE_COUNT)
    commas = sum(body.count(b",", at, at + SAMPLE_BYTES) for at in range(0, len(body), step))
    return max(1, int(SAFETY_FACTOR * commas * step / SAMPLE_BYTES) // pixels)


async def parse_form_files(content_type: bytes, body: bytes, field: str, max_files: int) -> list[tuple[str, bytes]]:
    """Returns name and bytes of each file in the multipart form's `field`, in order. Raises BadRequest."""
    headers = Headers(raw=[(b"content-type", _without_charset(content_type))])
    parser = MultiPartParser(headers, _single_chunk(body), max_files=max_files, max_fields=max_files)
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


async def read_image(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """Returns one encoded image: the raw body, or the `file` of a multipart form.

    Raises what `read_body` and `parse_form_files` raise.
    """
    body = await read_body(scope, receive, limit_bytes)
    content_type = header(scope, b"content-type")
    if not content_type.startswith(MULTIPART):
        return body
    files = await parse_form_files(content_type, body, "file", 1)
    return files[0][1]


def _without_charset(content_type: bytes) -> bytes:
    """Reduces a form's type to its boundary.

    File names in forms are UTF-8 (RFC 7578, 5.1.2). Starlette would decode them with any Python codec that the client
    names, and some codecs raise other errors.
    """
    _, options = parse_options_header(content_type)
    if b"boundary" not in options:
        return MULTIPART
    return b'%s; boundary="%s"' % (MULTIPART, options[b"boundary"].replace(b"\\", b"\\\\").replace(b'"', b'\\"'))


async def _single_chunk(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _check_size(body: bytes, limit_bytes: int) -> None:
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit_bytes} bytes.")
