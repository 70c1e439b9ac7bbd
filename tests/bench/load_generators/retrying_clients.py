"""Closed-loop HTTP/1.1 clients that wait for `Retry-After`, as well-behaved clients of an overloaded service do.

They run in their own process, so that other Python code of the benchmark does not slow them down. Independent of
Convoy.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import count
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from tests.bench.request_bodies import Body

LOST = -1
"""Status of a request that was sent on an open connection and never answered."""
REJECTED = (429, 503)
MIN_PAUSE_S = 0.1
"""Pause of a rejected client whose response has no `Retry-After`, such as a proxy's."""
ANSWER_TIMEOUT_S = 60.0


class Load(NamedTuple):
    """Clients that post the same kind of body. Each sends its next request after its last response."""

    url: str
    body: Body
    clients: int
    seconds: float
    begin_s: float = 0.0
    """Seconds after the start of the run at which these clients start."""
    requests_per_s: float | None = None
    """Rate of all clients together, if responses are fast enough. None: as fast as possible."""


class RequestRecord(NamedTuple):
    """One request: the time at which it was sent, in seconds since the start of the run, and its result."""

    start_s: float
    latency_s: float
    status: int


class Run(NamedTuple):
    """All loads of one run: the start of the run on the clock `time.monotonic`, and the records of each load."""

    epoch_s: float
    records: list[list[RequestRecord]]


def run(*loads: Load) -> list[list[RequestRecord]]:
    """Runs all loads at once in another process, and returns the records of each."""
    return start(loads).result().records


def start(loads: Sequence[Load]) -> "Future[Run]":
    """Starts all loads at once in another process, which needs about a second to start."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    future = pool.submit(_run, list(loads))
    pool.shutdown(wait=False)
    return future


def _run(loads: list[Load]) -> Run:
    return uvloop.run(_run_all(loads))


async def _run_all(loads: list[Load]) -> Run:
    epoch_s = time.monotonic()
    return Run(epoch_s, list(await asyncio.gather(*(_run_load(load, epoch_s) for load in loads))))


async def _run_load(load: Load, epoch_s: float) -> list[RequestRecord]:
    """Starts the clients. At the end, stops the clients that wait and lets the others finish their request."""
    records: list[RequestRecord] = []
    requests = _requests(load)
    end_s = epoch_s + load.begin_s + load.seconds
    await asyncio.sleep(load.begin_s)
    clients = [
        asyncio.create_task(_Client(load, number, requests, records, epoch_s, end_s).run())
        for number in range(load.clients)
    ]
    await asyncio.gather(*clients)
    return records


def _requests(load: Load) -> Iterator[bytes]:
    """Yields the requests as bytes, over and over."""
    target = urlsplit(load.url)
    bodies = [load.body.file(number).read_bytes() for number in range(load.body.count)]
    headers = "".join(f"{name}: {value}\r\n" for name, value in load.body.headers().items())
    encoded = [
        f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    ]
    return (encoded[number % len(encoded)] for number in count())


class _Client:
    """A client with one connection, which is reopened when the server closes it."""

    def __init__(
        self,
        load: Load,
        number: int,
        requests: Iterator[bytes],
        records: list[RequestRecord],
        epoch_s: float,
        end_s: float,
    ) -> None:
        target = urlsplit(load.url)
        self._host, self._port = str(target.hostname), int(target.port or 80)
        self._interval_s = load.clients / load.requests_per_s if load.requests_per_s else 0.0
        self._next_s = time.monotonic() + self._interval_s * number / load.clients
        self._requests = requests
        self._records = records
        self._epoch_s = epoch_s
        self._end_s = end_s
        self._connection: _Connection | None = None

    async def run(self) -> None:
        """Sends requests until the end, or until the server no longer accepts connections."""
        while await self._wait_for_turn():
            try:
                pause_s = await self._request()
            except OSError:  # connection refused: the service has stopped
                break
            self._next_s = max(self._next_s + self._interval_s, time.monotonic() + pause_s)
        if self._connection is not None:
            self._connection.transport.close()

    async def _wait_for_turn(self) -> bool:
        """Waits until the next request is due. Returns whether that is before the end."""
        now_s = time.monotonic()
        if self._next_s > now_s:
            await asyncio.sleep(min(self._next_s, self._end_s) - now_s)
        return time.monotonic() < self._end_s

    async def _request(self) -> float:
        """Sends one request and returns the seconds to wait before the next. Raises OSError if no connection can be
        opened."""
        if self._connection is None or self._connection.transport.is_closing():
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(_Connection, self._host, self._port)
        started_s = time.monotonic()
        status, retry_after_s = await self._connection.send(next(self._requests))
        latency_s = time.monotonic() - started_s
        self._records.append(RequestRecord(started_s - self._epoch_s, latency_s, status))
        return max(MIN_PAUSE_S, retry_after_s) if status in REJECTED else 0.0


class _Connection(asyncio.Protocol):
    """Sends one request at a time and parses its response."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transport is not a subclass
        self._answer: asyncio.Future[tuple[int, float]] | None = None

    async def send(self, request: bytes) -> tuple[int, float]:
        """Returns the status and the seconds of `Retry-After`."""
        self._parser = httptools.HttpResponseParser(self)
        self._retry_after_s = 0.0
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await asyncio.wait_for(self._answer, ANSWER_TIMEOUT_S)
        except TimeoutError:
            self.transport.abort()
            return LOST, 0.0

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after_s = float(value)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.transport.close()
        self._resolve(self._parser.get_status_code(), self._retry_after_s)

    def connection_lost(self, error: Exception | None) -> None:
        self._resolve(LOST, 0.0)

    def _resolve(self, status: int, retry_after_s: float) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, retry_after_s))
