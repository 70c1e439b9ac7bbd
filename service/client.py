"""The HTTP client: images in, labels out. It needs httpx and no other module of Convoy, so the file may be copied.

Connections are kept, and shared by threads or tasks. What a busy service refuses and what the network loses is sent
again, no earlier than Retry-After says, until the call's deadline. The service is told of the deadline too, and drops
what nobody waits for any more.
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
MAX_BODY_BYTES = 8 * 1024 * 1024  # half of what the service takes by default
MAX_ANSWER_BYTES = 128 * 1024 * 1024  # unpacked; 32 images with all probabilities of 21,841 classes take half of it
UPLOAD_CHUNK_BYTES = 65536
FIRST_RETRY_DELAY_S, MAX_RETRY_DELAY_S = 0.1, 5.0
SERVICE_TIME_FRACTION = 0.95  # of the remaining time: the rest is for the response's way back
MAX_TIMEOUT_MS = 999_999_999
TOO_MANY_PIXELS = "too_many_pixels"  # the code of an image that was rejected because of the others in its request

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
    """What an image shows, the best class first, as that version of the model sees it.

    A model with sigmoids gives all labels above 50 % where no `top_k` is asked for, and so maybe none.
    """

    model: str
    version: str
    predictions: tuple[Prediction, ...]

    @property
    def best(self) -> Prediction:
        """Raises IndexError when there is none."""
        return self.predictions[0]


class ClientError(Exception):
    """Base of all that a call raises, but for a TypeError when it is given something that cannot be an image."""


class Unreachable(ClientError):
    """Nobody answered until the deadline: no connection, or one that broke off each time."""


class Unsendable(ClientError):
    """Nothing can be sent like that: the URL lacks its http:// or https://, a header or key holds a line break."""


@dataclass(eq=False)
class ServiceError(ClientError):
    """The service's own error: `code` is stable and meant for programs, `hint` says what to do.

    `status` is None where the error is that of one image among many, or was found before anything was sent.
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
    """The image is none, is damaged or too large, or cannot be read from its file. Sending it again is of no use."""


class NotFound(ServiceError):
    """There is no such model or version, or nothing of Convoy's at that address."""


class NotAllowed(ServiceError):
    """The service wants a key, or this one does not open that door: `headers={"Authorization": "Bearer KEY"}`."""


class Busy(ServiceError):
    """The service cannot take the request now: its queue is full, it is starting or stopping."""


class DeadlineExceeded(ServiceError):
    """The answer was not there in time."""


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
# What stands between, a proxy or a balancer, has no codes.
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
    """What a call may ask for beside the classes."""

    version: str
    """A version or a label of one; otherwise the newest version answers."""
    top_k: int
    """How many classes; otherwise 5, or of a model with sigmoids all labels above 50 %."""
    deadline_s: float
    """Seconds for the call with all its attempts; otherwise 30.

    AsyncClient keeps them whatever happens. Client looks at the clock before each stage and 64 KiB that it sends, and
    after each part of the answer's body, and waits for the network no longer than was left by then: what stands still
    just before the end may take twice the time. It does not bound headers of an answer that come byte by byte, nor the
    look-up of the service's name.
    """
    background: bool
    """Whether it waits behind the interactive requests."""


class Client:
    """For threads. Open one and keep it: `with Client("http://127.0.0.1:8000") as client: ...`."""

    def __init__(self, url: str, *, defaults: Options | None = None, **httpx_options: Any) -> None:
        """`defaults` are options for all calls; `httpx_options` go to httpx.Client: `headers`, `verify` and so on."""
        self._defaults: Options = defaults or {}
        self._http = httpx.Client(base_url=url, **httpx_options)

    def classify(self, model: str, image: "ImageSource", **options: Unpack[Options]) -> Classification:
        """The `top_k` best classes of one image: a path, encoded bytes, a PIL image, or uint8 (h, w[, channels]).

        Raises BadImage, NotFound, NotAllowed, Busy, DeadlineExceeded or another ServiceError; Unreachable,
        Unsendable.
        """
        call = _single_call(model, image, self._defaults | options)
        return _parse_classification(self._send(call, threading.Event()))

    def classify_many(
        self, model: str, images: "Iterable[ImageSource]", *, concurrency: int = CONCURRENCY, **options: Unpack[Options]
    ) -> Iterator[Result]:
        """The same for many, in their order; an image that is none gives its BadImage instead of raising it.

        They go in requests of up to 32, `concurrency` at a time, each with a deadline of its own, as the results are
        asked for: images may be a generator of any length. What has too many pixels for one request goes in several,
        until the same deadline. Raises as `classify` does, after what came before.

        Whoever leaves early, by `break` for one, waits for no request: those under way end in their threads, each
        with its present attempt.
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
        """Returns the answer, after as many attempts as it needs, and makes none once `cancelled` is set."""
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
            for part in response.iter_bytes():
                if body:
                    retry.check()  # httpx' timeouts are for each read: a slow sender never exceeds them
                _append_part(body, part)
            return response, bytes(body)


class AsyncClient:
    """The same for tasks: `async with AsyncClient("http://127.0.0.1:8000") as client: ...`."""

    def __init__(self, url: str, *, defaults: Options | None = None, **httpx_options: Any) -> None:
        """As `Client`; `httpx_options` go to httpx.AsyncClient."""
        self._defaults: Options = defaults or {}
        self._http = httpx.AsyncClient(base_url=url, **httpx_options)

    async def classify(self, model: str, image: "ImageSource", **options: Unpack[Options]) -> Classification:
        """As `Client.classify`."""
        call = await asyncio.to_thread(_single_call, model, image, self._defaults | options)
        return _parse_classification(await self._send(call))

    async def classify_many(
        self, model: str, images: "Iterable[ImageSource]", *, concurrency: int = CONCURRENCY, **options: Unpack[Options]
    ) -> AsyncIterator[Result]:
        """As `Client.classify_many`: `async for result in client.classify_many(...)`."""

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
            await asyncio.gather(*pending, return_exceptions=True)  # else asyncio logs unretrieved exceptions

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
            async for part in response.aiter_bytes():
                _append_part(body, part)
            return response, bytes(body)


@dataclass(frozen=True)
class _Call:
    """One request, however often it is sent.

    `entries` holds the results that are known, and the images that wait for theirs: `max_images` of them are sent. The
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
        """Returns the call with the answer's results.

        Images that exceeded the pixel budget of the request stay pending, in requests no larger than it accepted now.
        """
        sent = len(self.files)
        results = _parse_results(answer, sent)
        is_resent = [sent > 1 and isinstance(result, BadImage) and result.code == TOO_MANY_PIXELS for result in results]
        final_results = [None if resend else result for result, resend in zip(results, is_resent, strict=True)]
        return replace(self._with_results(final_results), max_images=max(1, sent - sum(is_resent)))

    def with_rejection(self, error: BadImage) -> "_Call":
        """Returns the call with the rejection of its whole body as the result of its only image.

        Raises the error if it sent several.
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
    """The deadline of a call, the delays between its attempts, and the headers that tell the service of it."""

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
        return {"X-Request-Timeout-Ms": str(timeout_ms), **priority}

    def check(self) -> None:
        """Raises DeadlineExceeded when there is no time left."""
        if time.monotonic() >= self._end_s:
            raise self.timeout_error()

    def timeout_error(self) -> ClientError:
        """Returns the error of the attempt before, which says more than a timeout, or DeadlineExceeded."""
        message = f"There was no complete answer within {self._deadline_s:g} seconds."
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
    """The body of a request in chunks. Checks the deadline before each: httpx applies its timeout to each write."""

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
    """The images of one group, in as many requests as their bytes need."""
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
    """The image as a file's bytes. Raises BadImage for what cannot be read, TypeError for no image."""
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
    """A PIL image as a PNG. Raises BadImage where it was opened from a file that is damaged behind its header."""
    file = io.BytesIO()
    try:
        converted = image if image.mode in _PNG_MODES else image.convert("RGB")
        converted.save(file, "PNG", compress_level=1)
    except MemoryError:  # not caused by the image
        raise
    except Exception as error:  # Pillow's plugins raise many kinds
        raise BadImage("unreadable", f"The image cannot be read: {error}.", "Check its file.") from error
    return file.getvalue()


def _encode_array(image: Any) -> bytes:
    """An array as a PNG, which keeps every value. By its interface: NumPy need not be there."""
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
    """Raises a ServiceError once the unpacked answer is larger than any of Convoy's: a small one may expand to much."""
    if len(body) + len(part) > MAX_ANSWER_BYTES:
        message = f"The answer is larger than {MAX_ANSWER_BYTES} bytes."
        raise ServiceError("answer_too_large", message, "Check the URL, or ask for fewer images or a smaller top_k.")
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
    message = error.get("message", f"The answer has status {status} and is none of Convoy's.")
    hint = error.get("hint", "Check the URL, and what stands between.")
    return error_type(
        code, message, hint, status, headers.get("x-request-id"), _retry_after_s(headers.get("retry-after", ""))
    )


def _retry_after_s(header: str) -> float | None:
    """Seconds, from either form of the header."""
    with suppress(ValueError):
        return None if math.isnan(seconds := float(header)) else max(0.0, seconds)
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


def _unsendable_error(error: httpx.TransportError) -> Unsendable:
    reason = str(error).partition(" b'")[0].rstrip(".")  # without the header itself
    return Unsendable(f"{reason}. The URL begins with http:// or https://; no header, and no key, has a line break.")


def _parse_classification(answer: Mapping[str, Any]) -> Classification:
    try:
        predictions = tuple(Prediction(p["index"], p["label"], p["probability"]) for p in answer["predictions"])
        return Classification(answer["model"], answer["version"], predictions)
    except (KeyError, TypeError) as error:
        raise _unexpected_answer_error() from error


def _unexpected_answer_error() -> ServiceError:
    return ServiceError("strange_answer", "The answer is none of Convoy's.", "Check the URL, and what stands between.")


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
