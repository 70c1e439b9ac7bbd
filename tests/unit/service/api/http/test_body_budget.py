"""The bytes of bodies in flight are limited, and each request releases its bytes exactly once."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.http.body import MAX_DECOMPRESSIONS, BodyReader
from service.api.http.body_budget import MAX_SMALL_BYTES, BodyBudget, release_body
from service.api.http.parse_thread import ParseThread
from service.api.http.status_codes import STATUS, ClientDisconnected, error_headers
from service.api.middleware import RequestMiddleware
from service.errors import BadImage, BodyTooLarge, MemoryFull
from service.observability.logs import RequestLogLimiter
from service.observability.metrics import Metrics
from service.workers.shutdown import ShutdownState
from tests.unit.service.api.scopes import request_scope

LIMIT_BYTES = 100
GZIP = [(b"content-encoding", b"gzip")]


class Rejections:
    """Counts calls."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_bodies_are_accepted_up_to_the_limit() -> None:
    rejections = Rejections()
    budget, scopes = BodyBudget(LIMIT_BYTES, rejections), [request_scope() for _ in range(3)]
    budget.reserve(scopes[0], 60)
    budget.reserve(scopes[1], 40)
    with pytest.raises(MemoryFull):
        budget.reserve(scopes[2], 1)
    assert (budget.used_bytes, rejections.count) == (100, 1)
    release_body(scopes[0])
    budget.reserve(scopes[2], 60)
    assert budget.used_bytes == 100


def test_a_body_larger_than_the_budget_is_accepted_alone() -> None:
    budget, large, other = BodyBudget(LIMIT_BYTES, Rejections()), request_scope(), request_scope()
    budget.reserve(large, 90)
    budget.reserve(large, 90)
    with pytest.raises(MemoryFull):
        budget.reserve(other, 1)
    release_body(large)
    budget.reserve(other, 1)
    with pytest.raises(MemoryFull):
        budget.reserve(large, 180)
    assert budget.used_bytes == 1


def test_large_bodies_leave_memory_for_small_ones() -> None:
    """A growing body counts as small until it exceeds the bound."""
    budget = BodyBudget(4 * MAX_SMALL_BYTES, Rejections())
    large, growing, small = request_scope(), request_scope(), request_scope()
    budget.reserve(large, 2 * MAX_SMALL_BYTES)
    budget.reserve(growing, MAX_SMALL_BYTES)
    for scope, size in ((large, 1), (growing, 1), (request_scope(), MAX_SMALL_BYTES + 1)):
        with pytest.raises(MemoryFull):
            budget.reserve(scope, size)
    budget.reserve(small, MAX_SMALL_BYTES)
    assert budget.used_bytes == 4 * MAX_SMALL_BYTES
    release_body(small)
    release_body(growing)
    budget.reserve(large, MAX_SMALL_BYTES)
    assert budget.used_bytes == 3 * MAX_SMALL_BYTES


def test_one_client_cannot_use_more_than_its_share() -> None:
    """Its requests wait for their turn to be decoded, so its bodies would fill the memory for many seconds."""
    rejections = Rejections()
    budget = BodyBudget(12 * MAX_SMALL_BYTES, rejections)
    scopes = [request_scope("one") for _ in range(8)]
    for scope in scopes:
        budget.reserve(scope, MAX_SMALL_BYTES)
    with pytest.raises(MemoryFull, match="this client's other requests fill its share"):
        budget.reserve(request_scope("one"), 1)
    with pytest.raises(MemoryFull, match="this client's other requests"):
        budget.reserve(scopes[0], 1)
    assert rejections.count == 2
    budget.reserve(request_scope("another"), MAX_SMALL_BYTES)
    release_body(scopes[0])
    budget.reserve(request_scope("one"), MAX_SMALL_BYTES)
    with pytest.raises(MemoryFull, match="this client's other requests"):
        budget.reserve(request_scope("one"), 1)


def test_one_client_leaves_memory_for_large_bodies() -> None:
    budget, large = BodyBudget(12 * MAX_SMALL_BYTES, Rejections()), request_scope("one")
    budget.reserve(large, 5 * MAX_SMALL_BYTES)
    budget.reserve(large, MAX_SMALL_BYTES)
    budget.reserve(large, MAX_SMALL_BYTES)  # a single body may be larger than the share
    with pytest.raises(MemoryFull, match="this client's other requests"):
        budget.reserve(request_scope("one"), 2 * MAX_SMALL_BYTES)
    budget.reserve(request_scope("another"), 2 * MAX_SMALL_BYTES)
    budget.reserve(request_scope("one"), MAX_SMALL_BYTES)


def test_the_memory_of_a_request_is_released_once() -> None:
    budget, scopes = BodyBudget(LIMIT_BYTES, Rejections()), [request_scope(), request_scope()]
    for scope in scopes:
        budget.reserve(scope, 30)
        budget.reserve(scope, 10)
    for _ in range(2):
        release_body(scopes[0])
    assert budget.used_bytes == 40
    release_body(request_scope())  # a request without a body
    assert budget.used_bytes == 40


def test_the_client_gets_retry_after() -> None:
    error = MemoryFull("Full.", 1.0)
    assert (STATUS[type(error)], error_headers(error), error.code) == (503, {"retry-after": "1"}, "memory_full")


class Client:
    """Sends these messages, counts in `received` how many were read, and then disconnects."""

    def __init__(self, *pieces: bytes) -> None:
        self.received = 0
        self._pieces = pieces

    async def receive(self) -> Message:
        if self.received == len(self._pieces):
            return {"type": "http.disconnect"}
        self.received += 1
        body = self._pieces[self.received - 1]
        return {"type": "http.request", "body": body, "more_body": self.received < len(self._pieces)}


def test_a_body_of_known_length_is_rejected_before_it_is_read() -> None:
    budget, client = BodyBudget(LIMIT_BYTES, Rejections()), Client(bytes(60))
    budget.reserve(request_scope(), 50)
    with closing(ParseThread(10, lambda: None)) as thread, pytest.raises(MemoryFull):
        asyncio.run(
            BodyReader(10**6, budget, thread).read(request_scope(headers=[(b"content-length", b"60")]), client.receive)
        )
    assert (client.received, budget.used_bytes) == (0, 50)


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"45")]])
def test_a_body_counts_as_it_arrives(headers: list[tuple[bytes, bytes]]) -> None:
    """Clients that announce large bodies but send nothing do not block other requests."""
    budget, client = BodyBudget(LIMIT_BYTES, Rejections()), Client(*[bytes(20)] * 5)
    scope = request_scope(headers=headers)
    budget.reserve(request_scope(), 50)
    with closing(ParseThread(10, lambda: None)) as thread, pytest.raises(MemoryFull):
        asyncio.run(BodyReader(10**6, budget, thread).read(scope, client.receive))
    assert (client.received, budget.used_bytes) == (3, 90)
    release_body(scope)
    assert budget.used_bytes == 50


@pytest.mark.parametrize("known_length", [True, False])
def test_a_body_counts_once_and_again_decompressed(known_length: bool) -> None:
    body = gzip.compress(bytes(80))
    headers = [(b"content-length", b"%d" % len(body))] if known_length else []
    budget, scope = BodyBudget(LIMIT_BYTES, Rejections()), request_scope(headers=[*GZIP, *headers])
    with closing(ParseThread(10, lambda: None)) as thread:
        reader = BodyReader(10**6, budget, thread)
        assert asyncio.run(reader.read(scope, Client(body).receive)) == bytes(80)
    assert budget.used_bytes == len(body) + 80


def test_few_bodies_are_decompressed_before_they_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand bodies of one kilobyte could expand to a gigabyte before the event loop counted them."""
    body, count, decompressing = gzip.compress(bytes(80)), 50, 0
    budget = BodyBudget(count * (len(body) + 80), Rejections())

    async def run(reader: BodyReader) -> list[bytes]:
        released = asyncio.Event()

        async def to_thread(function: Callable[..., bytes], *args: Any) -> bytes:
            nonlocal decompressing
            decompressing += 1
            await released.wait()
            return function(*args)

        monkeypatch.setattr(asyncio, "to_thread", to_thread)
        scopes = [request_scope(headers=GZIP) for _ in range(count)]
        reading = [asyncio.ensure_future(reader.read(scope, Client(body).receive)) for scope in scopes]
        for _ in range(10):  # until all bodies have arrived
            await asyncio.sleep(0)
        assert budget.used_bytes == count * len(body)
        assert decompressing == MAX_DECOMPRESSIONS
        released.set()
        return await asyncio.gather(*reading)

    with closing(ParseThread(10, lambda: None)) as thread:
        assert asyncio.run(run(BodyReader(10**6, budget, thread))) == [bytes(80)] * count
    assert budget.used_bytes == count * (len(body) + 80)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def raise_error(error: BaseException) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return fail


ENDS: dict[str, Any] = {
    "answered": answer,
    "rejected": raise_error(BadImage("It is damaged.")),
    "too large": raise_error(BodyTooLarge("It is too large.")),
    "disconnected": raise_error(ClientDisconnected()),
    "timed out": raise_error(TimeoutError()),
    "cancelled": raise_error(asyncio.CancelledError()),
    "failed": raise_error(RuntimeError("a bug")),
    "out of memory": raise_error(MemoryError()),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_body_is_released_however_its_request_ends(end: str) -> None:
    budget, used_bytes, metrics = BodyBudget(LIMIT_BYTES, Rejections()), [], Metrics()
    budget.reserve(request_scope(), 7)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        budget.reserve(scope, 50)
        used_bytes.append(budget.used_bytes)
        await ENDS[end](scope, receive, send)

    async def send(message: Message) -> None:
        used_bytes.append(budget.used_bytes)  # a response is still being sent

    async def run() -> None:
        middleware = RequestMiddleware(app, metrics, ShutdownState(), RequestLogLimiter(0), None)
        await asyncio.gather(middleware(request_scope(), Client().receive, send), return_exceptions=True)

    asyncio.run(run())
    assert set(used_bytes) == {57}
    assert budget.used_bytes == 7
