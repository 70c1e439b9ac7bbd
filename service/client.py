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

import httpx

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    ImageSource = str | os.PathLike[str] | bytes | Image | NDArray[np.uint8]

DEADLINE_S = 30.0
IMAGES_A_REQUEST = 32
CONCURRENCY = 4
BODY_BYTES = 8 * 1024 * 1024  # half of what the service takes by default
PIECE_BYTES = 65536
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
SERVICE_SHARE = 0.95  # of the time that is left: the rest is for the way back
LONGEST_TIMEOUT_MS = 999_999_999
CROWDED = "too_many_pixels"  # the code of an image that is refused for those beside it

_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class: its index, its label, and its probability."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classification:
    """What an image shows, the best class first, as that version of the model sees it."""

    model: str
    version: str
    predictions: tuple[Prediction, ...]

    @property
    def best(self) -> Prediction:
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


_KINDS: dict[str, type[ServiceError]] = {
    "bad_image": BadImage,
    "unsupported_image": BadImage,
    "image_too_large": BadImage,
    "body_too_large": BadImage,
    "unknown_model": NotFound,
    "unknown_version": NotFound,
    "not_found": NotFound,
    "unauthenticated": NotAllowed,
    "forbidden": NotAllowed,
    "overloaded": Busy,
    "draining": Busy,
    "not_ready": Busy,
    "deadline_exceeded": DeadlineExceeded,
}
# What stands between, a proxy or a balancer, has no codes.
_KINDS_BY_STATUS = {
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
    """How many classes; otherwise 5."""
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
        return _classification(self._send(_one(model, image, self._defaults | options), threading.Event()))

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
        gone = threading.Event()

        def run(group: "list[ImageSource]") -> list[Result]:
            results: list[Result] = []
            for call in _many(model, group, self._defaults | options):
                while call.files and not gone.is_set():
                    try:
                        call = call.answered(self._send(call, gone))
                    except BadImage as error:
                        call = call.refused(error)
                results += call.results
            return results

        pool = ThreadPoolExecutor(concurrency, "convoy-client")
        waiting: deque[Future[list[Result]]] = deque()
        try:
            for group in _grouped(images):
                waiting.append(pool.submit(run, group))
                if len(waiting) > concurrency:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            gone.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _send(self, call: "_Call", gone: threading.Event) -> Any:
        """Its answer, after as many attempts as it needs; none is made for a caller who is `gone`."""
        patience = _Patience(call)
        while True:
            try:
                return _answer_of(*self._attempt(call, patience))
            except (ServiceError, httpx.RequestError) as problem:
                if gone.wait(patience.before_next(problem)):
                    raise

    def _attempt(self, call: "_Call", patience: "_Patience") -> tuple[httpx.Response, bytes]:
        request = self._http.build_request(
            "POST", headers=patience.headers(), extensions={"timeout": _TimeLeft(patience)}, **call.request()
        )
        request.stream = _Upload(request.stream, patience)
        with closing(self._http.send(request, stream=True)) as got:
            parts: list[bytes] = []
            for part in got.iter_bytes():
                if parts:
                    patience.check()  # httpx' timeouts are for each read: a slow sender would never meet them
                parts.append(part)
            return got, b"".join(parts)


class AsyncClient:
    """The same for tasks: `async with AsyncClient("http://127.0.0.1:8000") as client: ...`."""

    def __init__(self, url: str, *, defaults: Options | None = None, **httpx_options: Any) -> None:
        """As `Client`; `httpx_options` go to httpx.AsyncClient."""
        self._defaults: Options = defaults or {}
        self._http = httpx.AsyncClient(base_url=url, **httpx_options)

    async def classify(self, model: str, image: "ImageSource", **options: Unpack[Options]) -> Classification:
        """As `Client.classify`."""
        call = await asyncio.to_thread(_one, model, image, self._defaults | options)
        return _classification(await self._send(call))

    async def classify_many(
        self, model: str, images: "Iterable[ImageSource]", *, concurrency: int = CONCURRENCY, **options: Unpack[Options]
    ) -> AsyncIterator[Result]:
        """As `Client.classify_many`: `async for result in client.classify_many(...)`."""

        async def run(group: "list[ImageSource]") -> list[Result]:
            results: list[Result] = []
            calls = _many(model, group, self._defaults | options)
            while call := await asyncio.to_thread(next, calls, None):
                while call.files:
                    try:
                        call = call.answered(await self._send(call))
                    except BadImage as error:
                        call = call.refused(error)
                results += call.results
            return results

        waiting: deque[asyncio.Task[list[Result]]] = deque()
        try:
            for group in _grouped(images):
                waiting.append(asyncio.create_task(run(group)))
                if len(waiting) >= concurrency:
                    for result in await waiting.popleft():
                        yield result
            while waiting:
                for result in await waiting.popleft():
                    yield result
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)  # else asyncio logs what nobody heard of

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, call: "_Call") -> Any:
        patience = _Patience(call)
        while True:
            try:
                async with asyncio.timeout(patience.left_s()):
                    got = await self._http.post(timeout=None, headers=patience.headers(), **call.request())
                return _answer_of(got, got.content)
            except TimeoutError:
                raise patience.over() from None
            except (ServiceError, httpx.RequestError) as problem:
                wait_s = patience.before_next(problem)
            await asyncio.sleep(wait_s)


@dataclass(frozen=True)
class _Call:
    """One request, however often it is sent; for many images, what became of those that it sends no more.

    `entries` are results where they are known, and the images that wait for theirs: `at_once` of them are sent. Its
    deadline counts from `begun_s`.
    """

    path: str
    options: Options
    content: bytes | None = None
    entries: list[bytes | Result] = field(default_factory=list)
    at_once: int = IMAGES_A_REQUEST
    begun_s: float = field(default_factory=time.monotonic)

    @property
    def files(self) -> list[tuple[str, tuple[str, bytes]]]:
        waiting = (entry for entry in self.entries if isinstance(entry, bytes))
        return [("files", (str(at), encoded)) for at, encoded in enumerate(islice(waiting, self.at_once))]

    @property
    def results(self) -> list[Result]:
        return [entry for entry in self.entries if not isinstance(entry, bytes)]

    def answered(self, answer: Mapping[str, Any]) -> "_Call":
        """What is left to do: the images that the service had no room for beside others, so many at once as it had
        room for now."""
        sent = len(self.files)
        results = _results(answer, sent)
        crowded = [sent > 1 and isinstance(result, BadImage) and result.code == CROWDED for result in results]
        taken = [None if again else result for result, again in zip(results, crowded, strict=True)]
        return replace(self._with(taken), at_once=max(1, sent - sum(crowded)))

    def refused(self, error: BadImage) -> "_Call":
        """As `answered`, where the body was refused as a whole: if one image made it so, that is its result. Raises
        the error otherwise."""
        if len(self.files) > 1:
            raise error
        return self._with([error])

    def _with(self, results: Iterable[Result | None]) -> "_Call":
        """With these results of what was sent; None keeps the image."""
        told = iter(results)
        entries = [(next(told, None) or entry) if isinstance(entry, bytes) else entry for entry in self.entries]
        return replace(self, entries=entries)

    def request(self) -> dict[str, Any]:
        query = {name: str(value) for name, value in self.options.items() if name in ("version", "top_k")}
        body = {"files": self.files} if self.content is None else {"content": self.content}
        return {"url": self.path, "params": query, **body}


class _Patience:
    """How long a call still goes on, and what the service is told of that."""

    def __init__(self, call: _Call) -> None:
        self._deadline_s = call.options.get("deadline_s", DEADLINE_S)
        self._end_s = call.begun_s + self._deadline_s
        self._background = call.options.get("background", False)
        self._attempts = 0
        self._before: ClientError | None = None

    def left_s(self) -> float:
        return max(self._end_s - time.monotonic(), 0.001)

    def headers(self) -> dict[str, str]:
        timeout_ms = min(max(1, int(self.left_s() * 1000 * SERVICE_SHARE)), LONGEST_TIMEOUT_MS)
        priority = {"Priority": "u=7"} if self._background else {}  # RFC 9218: a background task
        return {"X-Request-Timeout-Ms": str(timeout_ms), **priority}

    def check(self) -> None:
        """Raises DeadlineExceeded when there is no time left."""
        if time.monotonic() >= self._end_s:
            raise self.over()

    def over(self) -> ClientError:
        """The time is up: why the attempt before failed, where there was one, says more than that."""
        message = f"There was no complete answer within {self._deadline_s:g} seconds."
        hint = "Raise deadline_s, or send fewer requests at once."
        return self._before or DeadlineExceeded("deadline_exceeded", message, hint)

    def before_next(self, problem: ServiceError | httpx.RequestError) -> float:
        """Seconds to wait before the next attempt. Raises the problem where that is of no use, or would be too late."""
        if isinstance(problem, httpx.TimeoutException):
            raise self.over() from problem
        if isinstance(problem, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise _unsendable(problem) from None  # whose traceback would show the header, which may be a key
        if isinstance(problem, httpx.TransportError):
            self._before = Unreachable(f"The service cannot be reached: {problem or type(problem).__name__}.")
        elif isinstance(problem, Busy):
            self._before = problem
        elif isinstance(problem, httpx.RequestError):  # an answer that cannot be unpacked, or leads round in circles
            raise _strange() from problem
        else:
            raise problem
        wait_s = self._wait_s(getattr(problem, "retry_after_s", None))
        self._attempts += 1
        if wait_s >= self._end_s - time.monotonic():
            raise self._before
        return wait_s

    def _wait_s(self, asked_s: float | None) -> float:
        """The longer of what is asked for and what grows with each attempt; a little apart, so that all who were
        refused together do not come back together."""
        own_s = min(FIRST_WAIT_S * 2.0**self._attempts, LONGEST_WAIT_S) * random.uniform(0.5, 1)
        return max((asked_s or 0.0) * random.uniform(1, 1.1), own_s)


class _TimeLeft(Mapping[str, float]):
    """httpx' timeouts for one attempt: each stage asks when it begins, and hears what is left of the call by then."""

    def __init__(self, patience: _Patience) -> None:
        self._patience = patience

    def __getitem__(self, stage: str) -> float:
        return self._patience.left_s()

    def __iter__(self) -> Iterator[str]:
        return iter(("pool", "connect", "write", "read"))

    def __len__(self) -> int:
        return 4


class _Upload(httpx.SyncByteStream):
    """A request's body in pieces, none of which is begun too late: httpx' timeout is for each write, and a slow
    reader makes many of them."""

    def __init__(self, body: Any, patience: _Patience) -> None:
        self._body = body
        self._patience = patience

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            for at in range(0, len(part), PIECE_BYTES):
                self._patience.check()
                yield part[at : at + PIECE_BYTES]


def _one(model: str, image: "ImageSource", options: Options) -> _Call:
    return _Call(_path(model), options, _encoded(image))


def _many(model: str, group: "list[ImageSource]", options: Options) -> Iterator[_Call]:
    """The images of one group, in as many requests as their bytes need."""
    entries: list[bytes | Result] = []
    size = 0
    for image in group:
        entry = _entry(image)
        added = len(entry) if isinstance(entry, bytes) else 0
        if size and size + added > BODY_BYTES:
            yield _Call(f"{_path(model)}/batch", options, entries=entries)
            entries, size = [], 0
        entries.append(entry)
        size += added
    yield _Call(f"{_path(model)}/batch", options, entries=entries)


def _path(model: str) -> str:
    return f"/api/v1/models/{quote(model, safe='')}/classify"


def _grouped(images: "Iterable[ImageSource]") -> "Iterator[list[ImageSource]]":
    rest = iter(images)
    while group := list(islice(rest, IMAGES_A_REQUEST)):
        yield group


def _entry(image: "ImageSource") -> bytes | BadImage:
    try:
        return _encoded(image)
    except BadImage as error:
        return error


def _encoded(image: Any) -> bytes:
    """The image as a file's bytes. Raises BadImage for what cannot be read, TypeError for no image."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise BadImage("unreadable", f"{image} cannot be read: {error.strerror}.", "Check the path.") from error
    if hasattr(image, "save") and hasattr(image, "mode"):
        return _encoded_image(image)
    return _encoded_array(image)


def _encoded_image(image: "Image") -> bytes:
    """A PIL image as a PNG. Raises BadImage where it was opened from a file that is damaged behind its header."""
    file = io.BytesIO()
    try:
        converted = image if image.mode in _PNG_MODES else image.convert("RGB")
        converted.save(file, "PNG", compress_level=1)
    except MemoryError:  # no fault of the image's
        raise
    except Exception as error:  # Pillow's plugins raise many kinds
        raise BadImage("unreadable", f"The image cannot be read: {error}.", "Check its file.") from error
    return file.getvalue()


def _encoded_array(image: Any) -> bytes:
    """An array as a PNG, which keeps every value. By its interface: NumPy need not be there."""
    interface = getattr(image, "__array_interface__", {})
    shape = tuple(interface.get("shape", ()))
    channels = shape[2] if len(shape) == 3 else 1
    if interface.get("typestr") != "|u1" or len(shape) not in (2, 3) or channels not in _PNG_COLOUR:
        what = f"{interface.get('typestr', type(image).__name__)} {shape or ''}".rstrip()
        raise TypeError(f"an image is a path, bytes, a PIL image, or uint8 (height, width[, channels]); not {what}")
    return _png(image.tobytes(), shape[0], shape[1], channels)


def _png(pixels: bytes, height: int, width: int, channels: int) -> bytes:
    stride = width * channels
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, height * stride, stride))
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOUR[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _answer_of(response: httpx.Response, body: bytes) -> Any:
    """The answer's JSON. Raises the ServiceError that it tells."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return answer
    told = answer.get("error") if isinstance(answer, dict) else None
    raise _error(told if isinstance(told, dict) and isinstance(told.get("code"), str) else {}, response)


def _error(told: Mapping[str, Any], response: httpx.Response) -> ServiceError:
    status, headers = response.status_code, response.headers
    code = told.get("code", f"http_{status}")
    kind = _KINDS.get(code) or _KINDS_BY_STATUS.get(status, ServiceError)
    message = told.get("message", f"The answer has status {status} and is none of Convoy's.")
    hint = told.get("hint", "Check the URL, and what stands between.")
    return kind(
        code, message, hint, status, headers.get("x-request-id"), _retry_after_s(headers.get("retry-after", ""))
    )


def _retry_after_s(header: str) -> float | None:
    """Seconds, from either form of the header."""
    with suppress(ValueError):
        return None if math.isnan(asked_s := float(header)) else max(0.0, asked_s)
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


def _unsendable(problem: httpx.TransportError) -> Unsendable:
    what = str(problem).partition(" b'")[0].rstrip(".")  # without the header itself
    return Unsendable(f"{what}. The URL begins with http:// or https://; no header, and no key, has a line break.")


def _classification(answer: Mapping[str, Any]) -> Classification:
    try:
        predictions = tuple(Prediction(p["index"], p["label"], p["probability"]) for p in answer["predictions"])
        return Classification(answer["model"], answer["version"], predictions)
    except (KeyError, TypeError) as error:
        raise _strange() from error


def _strange() -> ServiceError:
    return ServiceError("strange_answer", "The answer is none of Convoy's.", "Check the URL, and what stands between.")


def _results(answer: Mapping[str, Any], count: int) -> list[Result]:
    try:
        results = [_result(told, answer) for told in answer["results"]]
    except (KeyError, TypeError) as error:
        raise _strange() from error
    if len(results) != count:
        raise _strange()
    return results


def _result(told: Mapping[str, Any], answer: Mapping[str, Any]) -> Result:
    if "error" in told:
        error = told["error"]
        return BadImage(error["code"], error["message"], error["hint"])
    return _classification({**answer, **told})
