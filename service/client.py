"""The HTTP client: images in, labels out. It needs httpx and no other module of Convoy, so the file may be copied.

Connections are kept open, and are shared by threads or tasks. Requests that a busy service rejects or that the network
loses are sent again until the call's deadline, no earlier than Retry-After says. The service receives the deadline too,
and drops requests whose deadline has passed.
"""

import asyncio
import io
import json
import math
import os
import random
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from urllib.parse import quote

try:
    import httpx
except ImportError as error:
    raise ImportError("Convoy's client needs the package httpx: pip install httpx") from error

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    ImageSource = str | os.PathLike[str] | bytes | Image | NDArray[np.uint8]

DEFAULT_DEADLINE_S = 30.0
MAX_IMAGES_PER_REQUEST = 32
CONCURRENCY = 4
MAX_BODY_BYTES = 8 * 1024 * 1024  # half of the service's default limit
MAX_ANSWER_BYTES = 128 * 1024 * 1024  # 32 images with all probabilities of 21,841 classes take half of it
UPLOAD_CHUNK_BYTES = 65536
FIRST_RETRY_DELAY_S, MAX_RETRY_DELAY_S = 0.1, 5.0
SERVICE_TIME_FRACTION = 0.95  # of the remaining time; the rest is for the transfer of the response
MAX_TIMEOUT_MS = 999_999_999
TOO_MANY_PIXELS = "too_many_pixels"  # the code of an image that was rejected because of other images in its request

_PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class: its index, its label, and its probability."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The predictions of one version of a model for an image, most probable class first.

    Without `top_k`, a sigmoid model returns all labels above 50 %, which may be none.
    """

    model: str
    version: str
    predictions: tuple[Prediction, ...]

    @property
    def best(self) -> Prediction:
        """The most probable class. Raises IndexError if there is no prediction."""
        return self.predictions[0]


class ClientError(Exception):
    """Base class of all errors that a call raises, except TypeError for an argument that cannot be an image."""


class Unreachable(ClientError):
    """The service did not answer before the deadline: every attempt failed to connect, or lost the connection."""


class Unsendable(ClientError):
    """The request cannot be sent: the URL lacks http:// or https://, or a header or key contains a line break."""


@dataclass(eq=False)
class ServiceError(ClientError):
    """An error that the service reported: `code` is stable, for programs. `hint` says what to do.

    `status` is None for the error of one image among many, and for an error that the client found before sending.
    """

    code: str
    message: str
    hint: str = ""
    status: int | None = None
    request_id: str | None = None
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class BadImage(ServiceError):
    """The bytes are not an image, or the image is damaged, too large or unreadable. Sending the image again does not
    help."""


class NotFound(ServiceError):
    """The model or the version does not exist, or the URL is not a Convoy service."""


class NotAllowed(ServiceError):
    """The key is missing, unknown, or lacks a scope. Pass it as `headers={"Authorization": "Bearer KEY"}`."""


class Busy(ServiceError):
    """The service cannot accept the request now: its queue is full, or it is starting or stopping."""


class DeadlineExceeded(ServiceError):
    """The request was not answered before the deadline."""


_ERROR_TYPES: dict[str, type[ServiceError]] = {
    "bad_image": BadImage,
    "unsupported_image": BadImage,
    "image_too_large": BadImage,
    "body_too_large": BadImage,
    "unknown_model": NotFound,
    "unknown_version": NotFound,
    "not_found": NotFound,
    "unauthenticated": NotAllowed,
    "forbidden": NotAllowed,
    "queue_full": Busy,
    "too_late_to_start": Busy,
    "memory_full": Busy,
    "draining": Busy,
    "not_ready": Busy,
    "broken_model": ServiceError,
    "deadline_exceeded": DeadlineExceeded,
    "deadline_too_short": DeadlineExceeded,
    "expired_in_queue": DeadlineExceeded,
}
# For responses without a code, which come from proxies and load balancers.
_ERROR_TYPES_BY_STATUS = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    429: Busy,
    502: Busy,
    503: Busy,
    504: DeadlineExceeded,
}

Result = Classification | BadImage


class Options(TypedDict, total=False):
    """Options of a call."""

    version: str
    """Number or label of a version. Default: the newest version."""
    top_k: int
    """Number of classes. Default: 5, or for a sigmoid model all labels above 50 %."""
    deadline_s: float
    """Seconds for the call with all its attempts. Default: 30.

    AsyncClient always keeps the deadline. Client checks the clock before each stage of a request, before every 64 KiB
    that it sends, and after each part of the response body, and then waits for the network at most for the remaining
    time. If the network stalls just before the deadline, a call may therefore take up to twice the time. Client does
    not limit the time of a DNS lookup, or of headers that arrive byte by byte.
    """
    background: bool
    """Whether the request waits until interactive requests are done."""


class Client:
    """The client for threads. Create one and keep it: `with Client("http://127.0.0.1:8000") as client: ...`."""

    def __init__(self, url: str, *, defaults: Options | None = None, **httpx_options: Any) -> None:
        """`defaults` are options for all calls. `httpx_options` are passed to httpx.Client, such as `headers`."""
        self._defaults: Options = defaults or {}
        self._http = httpx.Client(base_url=url, **httpx_options)

    def classify(self, model: str, image: "ImageSource", **options: Unpack[Options]) -> Classification:
        """Returns the `top_k` most probable classes of one image.

        `image` is a path, encoded bytes, a PIL image, or an array, uint8 (h, w[, channels]). Raises BadImage, NotFound,
        NotAllowed, Busy, DeadlineExceeded or another ServiceError, Unreachable, or Unsendable.
        """
        call = _single_call(model, image, self._defaults | options)
        return _parse_classification(self._send(call, threading.Event()))

    def classify_many(
        self, model: str, images: "Iterable[ImageSource]", *, concurrency: int = CONCURRENCY, **options: Unpack[Options]
    ) -> Iterator[Result]:
        """Yields the classification of each image, in order. For an invalid image, yields its BadImage.

        Sends requests of up to 32 images, `concurrency` at a time, each with its own deadline. Requests are sent as
        results are consumed, so `images` may be a generator of any length. Images with too many pixels for one request
        are sent in several requests, with the same deadline. Raises the same errors as `classify`, after yielding the
        earlier results.

        A caller that stops early, for example with `break`, does not wait for requests: running requests end in their
        threads after the current attempt.
        """
        cancelled = threading.Event()

        def run(group: "list[ImageSource]") -> list[Result]:
            results: list[Result] = []
            for call in _batch_calls(model, group, self._defaults | options):
                while call.files and not cancelled.is_set():
                    try:
                        call = call.with_answer(self._send(call, cancelled))
                    except BadImage as error:
                        call = call.with_rejection(error)
                results += call.results
            return results

        pool = ThreadPoolExecutor(concurrency, "convoy-client")
        pending: deque[Future[list[Result]]] = deque()
        try:
            for group in _in_groups(images):
                pending.append(pool.submit(run, group))
                if len(pending) > concurrency:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _send(self, call: "_Call", cancelled: threading.Event) -> Any:
        """Returns the response, after as many attempts as necessary. Makes no further attempt when `cancelled` is
        set."""
        retry = _RetryPolicy(call)
        while True:
            try:
                return _parse_response(*self._attempt(call, retry))
            except (ServiceError, httpx.RequestError) as error:
                if cancelled.wait(retry.delay_before_retry(error)):
                    raise

    def _attempt(self, call: "_Call", retry: "_RetryPolicy") -> tuple[httpx.Response, bytes]:
        request = self._http.build_request(
            "POST", headers=retry.headers(), extensions={"timeout": _RemainingTimeouts(retry)}, **call.request()
        )
        request.stream = _DeadlineStream(request.stream, retry)
        with closing(self._http.send(request, stream=True)) as response:
            body = bytearray()
            for part in response.iter_raw():  # not decompressed, because httpx does not limit the size
                if body:
                    retry.check()  # httpx' timeout applies to each read, so a slow sender never exceeds it
                _append_part(body, part)
            return response, bytes(body)


class AsyncClient:
    """The client for asyncio tasks: `async with AsyncClient("http://127.0.0.1:8000") as client: ...`."""

    def __init__(self, url: str, *, defaults: Options | None = None, **httpx_options: Any) -> None:
        """`defaults` are options for all calls. `httpx_options` are passed to httpx.AsyncClient, such as `headers`."""
        self._defaults: Options = defaults or {}
        self._http = httpx.AsyncClient(base_url=url, **httpx_options)

    async def classify(self, model: str, image: "ImageSource", **options: Unpack[Options]) -> Classification:
        """Does the same as `Client.classify`."""
        call = await asyncio.to_thread(_single_call, model, image, self._defaults | options)
        return _parse_classification(await self._send(call))

    async def classify_many(
        self, model: str, images: "Iterable[ImageSource]", *, concurrency: int = CONCURRENCY, **options: Unpack[Options]
    ) -> AsyncIterator[Result]:
        """Does the same as `Client.classify_many`: `async for result in client.classify_many(...)`."""

        async def run(group: "list[ImageSource]") -> list[Result]:
            results: list[Result] = []
            calls = _batch_calls(model, group, self._defaults | options)
            while call := await asyncio.to_thread(next, calls, None):
                while call.files:
                    try:
                        call = call.with_answer(await self._send(call))
                    except BadImage as error:
                        call = call.with_rejection(error)
                results += call.results
            return results

        pending: deque[asyncio.Task[list[Result]]] = deque()
        try:
            for group in _in_groups(images):
                pending.append(asyncio.create_task(run(group)))
                if len(pending) >= concurrency:
                    for result in await pending.popleft():
                        yield result
            while pending:
                for result in await pending.popleft():
                    yield result
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)  # otherwise asyncio logs unretrieved exceptions

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, call: "_Call") -> Any:
        retry = _RetryPolicy(call)
        while True:
            try:
                async with asyncio.timeout(retry.remaining_s()):
                    return _parse_response(*await self._attempt(call, retry))
            except TimeoutError:
                raise retry.timeout_error() from None
            except (ServiceError, httpx.RequestError) as error:
                wait_s = retry.delay_before_retry(error)
            await asyncio.sleep(wait_s)

    async def _attempt(self, call: "_Call", retry: "_RetryPolicy") -> tuple[httpx.Response, bytes]:
        async with self._http.stream("POST", timeout=None, headers=retry.headers(), **call.request()) as response:
            body = bytearray()
            async for part in response.aiter_raw():
                _append_part(body, part)
            return response, bytes(body)


@dataclass(frozen=True)
class _Call:
    """One request, which may be sent several times.

    `entries` has the known results, and the images that have no result yet. At most `max_images` of these are sent. The
    deadline counts from `started_s`.
    """

    path: str
    options: Options
    content: bytes | None = None
    entries: list[bytes | Result] = field(default_factory=list)
    max_images: int = MAX_IMAGES_PER_REQUEST
    started_s: float = field(default_factory=time.monotonic)

    @property
    def files(self) -> list[tuple[str, tuple[str, bytes]]]:
        pending = (entry for entry in self.entries if isinstance(entry, bytes))
        return [("files", (str(index), content)) for index, content in enumerate(islice(pending, self.max_images))]

    @property
    def results(self) -> list[Result]:
        return [entry for entry in self.entries if not isinstance(entry, bytes)]

    def with_answer(self, answer: Mapping[str, Any]) -> "_Call":
        """Returns the call with the results of the response.

        Images that exceeded the pixel budget of the request stay pending. The next requests have no more images than
        the service accepted in this request.
        """
        sent = len(self.files)
        results = _parse_results(answer, sent)
        is_resent = [sent > 1 and isinstance(result, BadImage) and result.code == TOO_MANY_PIXELS for result in results]
        final_results = [None if resend else result for result, resend in zip(results, is_resent, strict=True)]
        return replace(self._with_results(final_results), max_images=max(1, sent - sum(is_resent)))

    def with_rejection(self, error: BadImage) -> "_Call":
        """Returns the call with the error of the whole request as the result of its only image.

        Raises the error if the request had several images.
        """
        if len(self.files) > 1:
            raise error
        return self._with_results([error])

    def _with_results(self, results: Iterable[Result | None]) -> "_Call":
        """Returns the call with these results of the images that were sent; None keeps the image."""
        remaining = iter(results)
        entries = [(next(remaining, None) or entry) if isinstance(entry, bytes) else entry for entry in self.entries]
        return replace(self, entries=entries)

    def request(self) -> dict[str, Any]:
        query = {name: str(value) for name, value in self.options.items() if name in ("version", "top_k")}
        body = {"files": self.files} if self.content is None else {"content": self.content}
        return {"url": self.path, "params": query, **body}


class _RetryPolicy:
    """The deadline of a call, the delays between its attempts, and the headers with deadline and priority."""

    def __init__(self, call: _Call) -> None:
        self._deadline_s = call.options.get("deadline_s", DEFAULT_DEADLINE_S)
        self._end_s = call.started_s + self._deadline_s
        self._background = call.options.get("background", False)
        self._attempts = 0
        self._last_error: ClientError | None = None

    def remaining_s(self) -> float:
        return max(self._end_s - time.monotonic(), 0.001)

    def headers(self) -> dict[str, str]:
        timeout_ms = min(max(1, int(self.remaining_s() * 1000 * SERVICE_TIME_FRACTION)), MAX_TIMEOUT_MS)
        priority = {"Priority": "u=7"} if self._background else {}  # RFC 9218: a background task
        return {"Accept-Encoding": "identity", "X-Request-Timeout-Ms": str(timeout_ms), **priority}

    def check(self) -> None:
        """Raises the error of `timeout_error` if there is no time left."""
        if time.monotonic() >= self._end_s:
            raise self.timeout_error()

    def timeout_error(self) -> ClientError:
        """Returns the error of the previous attempt, which is more precise than a timeout, or DeadlineExceeded if there
        was none."""
        message = f"There was no complete response within {self._deadline_s:g} seconds."
        hint = "Raise deadline_s, or send fewer requests at once."
        return self._last_error or DeadlineExceeded("deadline_exceeded", message, hint)

    def delay_before_retry(self, error: ServiceError | httpx.RequestError) -> float:
        """Returns the seconds until the next attempt. Raises the error if a retry is useless or comes too late."""
        if isinstance(error, httpx.TimeoutException):
            raise self.timeout_error() from error
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise _unsendable_error(error) from None  # The traceback would show the header, which may be a key.
        if isinstance(error, httpx.TransportError):
            self._last_error = Unreachable(f"The service cannot be reached: {error or type(error).__name__}.")
        elif isinstance(error, Busy):
            self._last_error = error
        elif isinstance(error, httpx.RequestError):  # a response that cannot be decompressed, or a redirect loop
            raise _unexpected_answer_error() from error
        else:
            raise error
        wait_s = self._backoff_s(getattr(error, "retry_after_s", None))
        self._attempts += 1
        if wait_s >= self._end_s - time.monotonic():
            raise self._last_error
        return wait_s

    def _backoff_s(self, retry_after_s: float | None) -> float:
        """Returns the longer of Retry-After and the exponential backoff, both with jitter."""
        backoff_s = min(FIRST_RETRY_DELAY_S * 2.0**self._attempts, MAX_RETRY_DELAY_S) * random.uniform(0.5, 1)
        return max((retry_after_s or 0.0) * random.uniform(1, 1.1), backoff_s)


class _RemainingTimeouts(Mapping[str, float]):
    """httpx' timeouts for one attempt: each stage reads its timeout when it begins, and gets the remaining time."""

    def __init__(self, retry: _RetryPolicy) -> None:
        self._retry = retry

    def __getitem__(self, stage: str) -> float:
        return self._retry.remaining_s()

    def __iter__(self) -> Iterator[str]:
        return iter(("pool", "connect", "write", "read"))

    def __len__(self) -> int:
        return 4


class _DeadlineStream(httpx.SyncByteStream):
    """The body of a request in chunks. Checks the deadline before each chunk, because httpx' timeout applies to each
    write."""

    def __init__(self, body: Any, retry: _RetryPolicy) -> None:
        self._body = body
        self._retry = retry

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            for start in range(0, len(part), UPLOAD_CHUNK_BYTES):
                self._retry.check()
                yield part[start : start + UPLOAD_CHUNK_BYTES]


def _single_call(model: str, image: "ImageSource", options: Options) -> _Call:
    return _Call(_path(model), options, _encode(image))


def _batch_calls(model: str, group: "list[ImageSource]", options: Options) -> Iterator[_Call]:
    """Yields requests with the images of one group, each of at most MAX_BODY_BYTES or one image."""
    entries: list[bytes | Result] = []
    size = 0
    for image in group:
        entry = _try_encode(image)
        added = len(entry) if isinstance(entry, bytes) else 0
        if size and size + added > MAX_BODY_BYTES:
            yield _Call(f"{_path(model)}/batch", options, entries=entries)
            entries, size = [], 0
        entries.append(entry)
        size += added
    yield _Call(f"{_path(model)}/batch", options, entries=entries)


def _path(model: str) -> str:
    return f"/api/v1/models/{quote(model, safe='')}/classify"


def _in_groups(images: "Iterable[ImageSource]") -> "Iterator[list[ImageSource]]":
    iterator = iter(images)
    while group := list(islice(iterator, MAX_IMAGES_PER_REQUEST)):
        yield group


def _try_encode(image: "ImageSource") -> bytes | BadImage:
    try:
        return _encode(image)
    except BadImage as error:
        return error


def _encode(image: Any) -> bytes:
    """Returns the bytes of an encoded image. Raises BadImage if it cannot be read, TypeError if it is not an image."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise BadImage("unreadable", f"{image} cannot be read: {error.strerror}.", "Check the path.") from error
    if hasattr(image, "save") and hasattr(image, "mode"):
        return _encode_pil_image(image)
    return _encode_array(image)


def _encode_pil_image(image: "Image") -> bytes:
    """Encodes a PIL image as PNG. Raises BadImage if it was opened from a file that is damaged after its header."""
    file = io.BytesIO()
    try:
        converted = image if image.mode in _PNG_MODES else image.convert("RGB")
        converted.save(file, "PNG", compress_level=1)
    except MemoryError:  # not caused by the image
        raise
    except Exception as error:  # Pillow's plugins raise many types
        raise BadImage("unreadable", f"The image cannot be read: {error}.", "Check the image file.") from error
    return file.getvalue()


def _encode_array(image: Any) -> bytes:
    """Encodes an array as PNG, which is lossless. Uses the array interface, so that NumPy need not be installed."""
    interface = getattr(image, "__array_interface__", {})
    shape = tuple(interface.get("shape", ()))
    channels = shape[2] if len(shape) == 3 else 1
    if interface.get("typestr") != "|u1" or len(shape) not in (2, 3) or channels not in _PNG_COLOR_TYPES:
        actual = f"{interface.get('typestr', type(image).__name__)} {shape or ''}".rstrip()
        raise TypeError(f"an image is a path, bytes, a PIL image, or uint8 (height, width[, channels]); not {actual}")
    return _encode_png(image.tobytes(), shape[0], shape[1], channels)


def _encode_png(pixels: bytes, height: int, width: int, channels: int) -> bytes:
    stride = width * channels
    rows = b"".join(b"\0" + pixels[start : start + stride] for start in range(0, height * stride, stride))
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _append_part(body: bytearray, part: bytes) -> None:
    """Appends a part. Raises ServiceError above MAX_ANSWER_BYTES."""
    if len(body) + len(part) > MAX_ANSWER_BYTES:
        message = f"The response is larger than {MAX_ANSWER_BYTES} bytes."
        raise ServiceError("answer_too_large", message, "Check the URL, or request fewer images or a smaller top_k.")
    body += part


def _parse_response(response: httpx.Response, body: bytes) -> Any:
    """Returns the JSON of the response. Raises the ServiceError that it describes."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    raise _service_error(error if isinstance(error, dict) and isinstance(error.get("code"), str) else {}, response)


def _service_error(error: Mapping[str, Any], response: httpx.Response) -> ServiceError:
    status, headers = response.status_code, response.headers
    code = error.get("code", f"http_{status}")
    error_type = _ERROR_TYPES.get(code) or _ERROR_TYPES_BY_STATUS.get(status, ServiceError)
    message = error.get("message", f"The response has status {status} and does not come from Convoy.")
    hint = error.get("hint", "Check the URL, and any proxies.")
    return error_type(
        code, message, hint, status, headers.get("x-request-id"), _retry_after_s(headers.get("retry-after", ""))
    )


def _retry_after_s(header: str) -> float | None:
    """Returns the seconds in either form of the header; None if it is invalid."""
    with suppress(ValueError):
        return None if math.isnan(seconds := float(header)) else max(0.0, seconds)
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


def _unsendable_error(error: httpx.TransportError) -> Unsendable:
    reason = str(error).partition(" b'")[0].rstrip(".")  # without the header, which may be a key
    return Unsendable(
        f"{reason}. The URL must begin with http:// or https://; headers and keys must not contain line breaks."
    )


def _parse_classification(answer: Mapping[str, Any]) -> Classification:
    try:
        predictions = tuple(Prediction(p["index"], p["label"], p["probability"]) for p in answer["predictions"])
        return Classification(answer["model"], answer["version"], predictions)
    except (KeyError, TypeError) as error:
        raise _unexpected_answer_error() from error


def _unexpected_answer_error() -> ServiceError:
    return ServiceError("strange_answer", "The response does not come from Convoy.", "Check the URL, and any proxies.")


def _parse_results(answer: Mapping[str, Any], count: int) -> list[Result]:
    try:
        results = [_parse_result(result, answer) for result in answer["results"]]
    except (KeyError, TypeError) as error:
        raise _unexpected_answer_error() from error
    if len(results) != count:
        raise _unexpected_answer_error()
    return results


def _parse_result(result: Mapping[str, Any], answer: Mapping[str, Any]) -> Result:
    if "error" in result:
        error = result["error"]
        return BadImage(error["code"], error["message"], error["hint"])
    return _parse_classification({**answer, **result})
