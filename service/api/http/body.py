"""Request bodies of limited size, read as bytes. Large bodies are joined and parsed outside the event loop."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.types import Receive, Scope

from service.api.http.body_budget import BodyBudget
from service.api.http.compression import content_encoding, decompress
from service.api.http.form import Fields, Form, is_form, parse_form
from service.api.http.parse_thread import MAX_INLINE_BYTES, MAX_INLINE_JSON_BYTES, ParseThread
from service.api.http.request_headers import client_name, content_length, header
from service.api.http.status_codes import ClientDisconnected
from service.errors import BodyTooLarge

T = TypeVar("T")
BODY_ERROR = "convoy.body_error"
"""Key in the ASGI scope for the error that ended the body early. The server sets it before it wakes the reader."""

MAX_DECOMPRESSIONS = 4
"""Maximum number of bodies that are decompressed at the same time, because their size is known and counted only
afterwards. Threads decompress faster than the event loop counts: without a limit, 540 MB from bodies of 1 KB waited to
be counted."""
MAX_INLINE_JOIN_BYTES = 1 << 20  # a copy takes 0.2 ms; b"".join releases the GIL above this size
COUNT_SLICE_BYTES = 1 << 20
SAMPLE_COUNT, SAMPLE_BYTES = 16, 512
SAFETY_FACTOR = 0.9


class BodyReader:
    """Reads bodies of up to `limit_bytes` within the budget, and parses them. Large bodies are parsed in the thread."""

    def __init__(self, limit_bytes: int, budget: BodyBudget, parse_thread: ParseThread) -> None:
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._parse_thread = parse_thread
        self._decompression_slots = asyncio.Semaphore(MAX_DECOMPRESSIONS)

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Returns the whole body without its Content-Encoding.

        Raises UnsupportedBody, BadRequest, BodyTooLarge (for the decompressed body too), or the errors of
        `read_chunks`.
        """
        chunks = await read_chunks(scope, receive, self._limit_bytes, self._budget)
        if len(chunks) == 1:
            body = chunks[0]
        else:
            body = await self._run(scope, sum(map(len, chunks)), MAX_INLINE_JOIN_BYTES, b"".join, chunks)
        if not (encoding := content_encoding(scope)):
            return body
        # Always in a thread, because a thousandth of the limit can decompress to the whole limit. Not in the parsing
        # thread, because zlib releases the GIL.
        async with self._decompression_slots:
            decompressed = await asyncio.to_thread(decompress, body, encoding, self._limit_bytes)
            self._budget.reserve(scope, len(decompressed))
        return decompressed

    async def read_image(self, scope: Scope, receive: Receive) -> tuple[bytes, Fields]:
        """Returns one encoded image (the raw body, or the `file` of a multipart form), and the form's text fields.

        Raises the errors of `read` and `parse_form`.
        """
        body = await self.read(scope, receive)
        content_type = header(scope, b"content-type")
        if not is_form(content_type):
            return body, []
        form: Form = await self.parse(scope, body, parse_form, content_type, body, "file", 1)
        return form.files[0][1], form.fields

    async def parse(self, scope: Scope, body: bytes, function: Callable[..., T], *args: Any) -> T:
        """Returns the result of `function(*args)`, which parses the body. Parses a large body in the thread.

        Raises TooLateToStart while earlier bodies of the client would take longer than a request may take.
        """
        return await self._run(scope, len(body), MAX_INLINE_BYTES, function, *args)

    async def parse_json(self, scope: Scope, body: bytes, function: Callable[..., T], *args: Any) -> T:
        """Does the same as `parse`, for a body of JSON or raw tensors."""
        return await self._run(scope, len(body), MAX_INLINE_JSON_BYTES, function, *args)

    async def _run(
        self, scope: Scope, size_bytes: int, max_inline_bytes: int, function: Callable[..., T], *args: Any
    ) -> T:
        if size_bytes <= max_inline_bytes:
            return function(*args)
        return await self._parse_thread.run(client_name(scope), size_bytes, function, *args)


async def read_chunks(scope: Scope, receive: Receive, limit_bytes: int, budget: BodyBudget) -> list[bytes]:
    """Returns the body as a list of the received chunks, at least one.

    Raises BodyTooLarge or MemoryFull (before reading, if there is a Content-Length), SlowRequest, BadHttp or
    ClientDisconnected.
    """
    expected_bytes = content_length(scope)
    if expected_bytes > limit_bytes:
        raise _too_large(limit_bytes)
    budget.check(scope, expected_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        # Counted on arrival, so that a client that announces a large body but sends nothing reserves no memory.
        budget.reserve(scope, len(chunks[-1]))
        if not message.get("more_body"):
            return chunks
        if BODY_ERROR in scope:
            raise scope[BODY_ERROR]


def estimate_image_count(content_type: bytes, body: bytes) -> int:
    """Estimates the number of images by counting part markers, about 1000 times faster than parsing.

    Wrong only if image data contains the marker. Counts slice by slice, because `count` holds the GIL.
    """
    marker = b"filename=" if is_form(content_type) else b'"data"'
    overlap = len(marker) - 1
    starts = range(0, len(body), COUNT_SLICE_BYTES)
    return sum(body.count(marker, start, start + COUNT_SLICE_BYTES + overlap) for start in starts)


def estimate_tensor_count(body: bytes, shape: tuple[int, int, int]) -> int:
    """Estimates the number of images of this shape in a body of JSON tensors; returns 1 for other bodies.

    Deliberately an underestimate: rejecting a request that would have succeeded is worse than queueing one that is
    rejected later. Counts only the commas of a sample, because counting all of them takes a tenth of the parsing time.
    """
    pixels = math.prod(shape)
    if len(body) < 4 * pixels:
        return 1
    step = max(SAMPLE_BYTES, len(body) // SAMPLE_COUNT)
    commas = sum(body.count(b",", at, at + SAMPLE_BYTES) for at in range(0, len(body), step))
    return max(1, int(SAFETY_FACTOR * commas * step / SAMPLE_BYTES) // pixels)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit_bytes} bytes.")
