"""A stopping server answers accepted requests. Requests that it cannot answer in time get 503, are counted and are
logged."""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.api.middleware import RequestMiddleware
from service.observability.logs import RequestLogLimiter
from service.observability.metrics import Metrics
from service.server import worker
from service.server.connection_limits import LimitedProtocol
from service.server.limits import ConnectionLimits
from service.server.worker import GIVEN_UP_S, REJECTION_S, STOP_OVERHEAD_S, WorkerServer
from service.settings import Settings
from service.workers.shutdown import ShutdownState
from tests.unit.service.server.test_worker import IdleRegistry, RecordingCounts

DRAIN_TIMEOUT_S = 33.0
NATIVE_PATH = "/api/v1/models/m/classify"
REQUEST = f"POST {NATIVE_PATH} HTTP/1.1\r\nHost: convoy\r\nContent-Length: 0\r\n\r\n".encode()


class FakeClock:
    """A clock that only the test advances, and that signals when it was read. With `step_s`, each reading advances it,
    as if the event loop were blocked in between."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.step_s = 0.0
        self._was_read = asyncio.Event()

    def __call__(self) -> float:
        self._was_read.set()
        self.now_s += self.step_s
        return self.now_s

    async def until_read(self, times: int) -> None:
        for _ in range(times):
            self._was_read.clear()
            await self._was_read.wait()


class WaitingApp:
    """Answers each request when the test allows it. With `is_streaming` the response starts before the wait.

    A cancelled request ends after `turns_to_end` turns of the event loop.
    """

    def __init__(self) -> None:
        self.is_streaming = False
        self.turns_to_end = 0
        self.may_answer = asyncio.Event()
        self._accepted = asyncio.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
        if self.is_streaming:
            await send(start)
        self._accepted.release()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            for _ in range(self.turns_to_end):
                await asyncio.sleep(0)
            raise
        if not self.is_streaming:
            await send(start)
        await send({"type": "http.response.body", "body": b"ok"})

    async def until_accepted(self) -> None:
        await self._accepted.acquire()


class Harness:
    """A server with one worker on a separate socket, without its main loop."""

    def __init__(self, folder: Path, sock: socket.socket, stop_delay_s: float = 0.0) -> None:
        self.sock = sock
        self.state, self.metrics = ShutdownState(), Metrics()
        self.app, self.clock = WaitingApp(), FakeClock()
        self._writers: list[asyncio.StreamWriter] = []
        middleware = RequestMiddleware(self.app, self.metrics, self.state, RequestLogLimiter(0), None)
        limits = ConnectionLimits.from_settings(Settings())
        config = uvicorn.Config(
            middleware,
            http=partial(LimitedProtocol, limits, self.metrics.count_unrouted_request),  # type: ignore[arg-type]
            lifespan="off",
            log_config=None,
        )
        config.load()
        registry: Any = IdleRegistry()
        self._counts = RecordingCounts(folder / "connections", 0, 1)
        self.server = WorkerServer(
            config,
            self.state,
            registry,
            os.getpid(),
            self._counts,
            DRAIN_TIMEOUT_S,
            clock=self.clock,
            stop_delay_s=stop_delay_s,
        )
        self.server.lifespan = config.lifespan_class(config)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a connection and returns when the server has accepted it."""
        expected = len(self.server.server_state.connections) + 1
        reader, writer = await asyncio.open_connection(*self.sock.getsockname())
        self._writers.append(writer)
        await self._counts.until(expected)
        return reader, writer

    async def send(self, path: str = NATIVE_PATH) -> asyncio.StreamReader:
        """Sends a request on a new connection, and returns when the application has it."""
        reader, writer = await asyncio.open_connection(*self.sock.getsockname())
        self._writers.append(writer)  # a writer that is not kept closes its connection
        writer.write(f"POST {path} HTTP/1.1\r\nHost: convoy\r\nContent-Length: 0\r\n\r\n".encode())
        await self.app.until_accepted()
        return reader

    async def disconnect_clients(self) -> None:
        """Disconnects all clients and returns when the server has detected it."""
        self.close_clients()
        await self._counts.until(0)

    def close_clients(self) -> None:
        for writer in self._writers:
            writer.close()

    def stop(self) -> "asyncio.Task[None]":
        self.server.handle_exit(signal.SIGTERM, None)
        return asyncio.create_task(self.server.shutdown([self.sock]))

    def lost(self) -> tuple[int, float]:
        """Returns the number of lost requests for the exit code, and in the metric."""
        return self.state.lost_requests, self.metrics.lost_requests._value.get()


@asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Harness]:
    monkeypatch.setattr(worker, "LAST_REQUEST_GRACE_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        harness = Harness(folder, sock)
        async with asyncio.timeout(30):
            await harness.server.startup([sock])
            yield harness
            harness.close_clients()


def request_log(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records if record.message == "request"]  # type: ignore[attr-defined]


def test_accepted_requests_are_answered_until_the_drain_timeout_is_nearly_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            replies = [await harness.send() for _ in range(3)]
            stopping = harness.stop()
            harness.clock.now_s += DRAIN_TIMEOUT_S - STOP_OVERHEAD_S - 0.01
            await harness.clock.until_read(times=3)
            assert not stopping.done()
            harness.app.may_answer.set()
            for reply in replies:
                answer = await reply.read()
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert answer.endswith(b"\r\n\r\nok")
                assert b"connection: close" in answer
            await stopping
            assert harness.lost() == (0, 0)

    asyncio.run(scenario())


def test_a_request_that_has_arrived_unread_on_an_idle_connection_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            harness.app.may_answer.set()
            busy_reader, busy_writer = await harness.connect()
            idle_reader, _ = await harness.connect()
            for connection in harness.server.server_state.connections:  # the event loop is busy and does not read
                connection.transport.pause_reading()
            busy_writer.write(REQUEST)
            stopping = harness.stop()
            await asyncio.wait_for(idle_reader.read(), 10)
            for connection in harness.server.server_state.connections:
                connection.transport.resume_reading()
            answer = await busy_reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection: close" in answer
            await stopping
            assert harness.lost() == (0, 0)

    asyncio.run(scenario())


async def send_body_without_reading(harness: Harness) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends the headers of a request with a large body, and returns when the application has the request."""
    reader, writer = await harness.connect()
    writer.write(f"POST {NATIVE_PATH} HTTP/1.1\r\nHost: convoy\r\nContent-Length: 200000000\r\n\r\n".encode())
    await harness.app.until_accepted()
    return reader, writer


def test_a_client_that_is_still_sending_receives_its_answer_although_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            harness.app.may_answer.set()
            reader, writer = await send_body_without_reading(harness)
            stopping = harness.stop()
            harness.clock.now_s += DRAIN_TIMEOUT_S - STOP_OVERHEAD_S - 0.01
            await harness.clock.until_read(times=3)
            for _ in range(10):
                writer.write(bytes(100_000))
                await writer.drain()  # fails if the server has reset the connection
            assert not stopping.done()
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()
            await stopping
            assert harness.lost() == (0, 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("signals", [1, 2])
def test_a_client_that_never_stops_sending_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, signals: int
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            harness.app.may_answer.set()
            await send_body_without_reading(harness)
            stopping = harness.stop()
            waits_s = DRAIN_TIMEOUT_S - STOP_OVERHEAD_S + REJECTION_S
            if signals == 2:
                harness.server.handle_exit(signal.SIGINT, None)
                waits_s = GIVEN_UP_S
            await harness.clock.until_read(times=3)
            harness.clock.now_s += waits_s - 0.01
            await harness.clock.until_read(times=3)
            assert not stopping.done()
            harness.clock.now_s += 0.01
            await stopping
            assert harness.lost() == (0, 0)

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert caplog.messages == []


@pytest.mark.parametrize("path", [NATIVE_PATH, "/v2/models/m/infer"])
def test_a_request_without_an_answer_at_the_end_gets_503_in_its_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            replies = [await harness.send(path) for _ in range(2)]
            stopping = harness.stop()
            harness.clock.now_s += DRAIN_TIMEOUT_S - STOP_OVERHEAD_S
            await stopping
            for reply in replies:
                head, _, body = (await reply.read()).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503 ")
                assert b"content-type: application/json" in head
                assert b"retry-after: 1" in head
                error = json.loads(body)["error"]
                assert (error["code"] if path == NATIVE_PATH else error[:19]) in ("draining", "The service stopped")
            assert harness.lost() == (2, 2)
            assert harness.metrics.requests.labels("other", 503)._value.get() == 2

    with caplog.at_level(logging.INFO, logger="convoy"):
        asyncio.run(scenario())
    assert [(line["status"], line["error"]) for line in request_log(caplog)] == [(503, "draining")] * 2
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_second_sigint_aborts_requests_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            reply = await harness.send()
            stopping = harness.stop()
            harness.server.handle_exit(signal.SIGINT, None)
            await stopping
            assert (await reply.read()).startswith(b"HTTP/1.1 503 ")
            assert harness.lost() == (1, 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("signals", [1, 2])
def test_requests_are_answered_although_the_event_loop_is_blocked_past_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    """A thread that parses a large body holds the GIL."""

    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            harness.app.turns_to_end = 3
            reply = await harness.send()
            harness.clock.step_s = DRAIN_TIMEOUT_S + GIVEN_UP_S
            stopping = harness.stop()
            if signals == 2:
                harness.server.handle_exit(signal.SIGINT, None)
            await stopping
            assert harness.lost() == (1, 1)
            assert not harness.server.server_state.tasks
            assert (await reply.read()).startswith(b"HTTP/1.1 503 ")

    asyncio.run(scenario())


def test_after_a_second_sigint_a_client_that_is_still_sending_receives_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            reader, writer = await send_body_without_reading(harness)
            stopping = harness.stop()
            harness.server.handle_exit(signal.SIGINT, None)
            await harness.clock.until_read(times=3)
            harness.clock.now_s += GIVEN_UP_S - 0.01
            await harness.clock.until_read(times=3)
            for _ in range(10):
                writer.write(bytes(100_000))
                await writer.drain()
            assert not stopping.done()
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
            await stopping
            assert harness.lost() == (1, 1)

    asyncio.run(scenario())


def test_an_answer_that_cannot_be_completed_ends_its_connection_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            harness.app.is_streaming = True
            reply = await harness.send()
            stopping = harness.stop()
            harness.clock.now_s += DRAIN_TIMEOUT_S
            await stopping
            answer = await reply.read()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n"), "no error instead of the body"
            assert harness.lost() == (1, 1)

    asyncio.run(scenario())


def test_a_request_whose_client_has_left_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, monkeypatch) as harness:
            await harness.send()
            await harness.disconnect_clients()
            stopping = harness.stop()
            harness.clock.now_s += DRAIN_TIMEOUT_S
            await stopping
            assert harness.lost() == (0, 0)

    with caplog.at_level(logging.INFO, logger="convoy"):
        asyncio.run(scenario())
    assert [line["status"] for line in request_log(caplog)] == [499]


@pytest.mark.parametrize(
    ("first", "second", "stops_after_s"),
    [
        (signal.SIGTERM, None, 5.0),
        (signal.SIGTERM, signal.SIGTERM, 0.0),
        (signal.SIGTERM, signal.SIGINT, 0.0),
        (signal.SIGINT, None, 0.0),
    ],
)
def test_sigterm_stops_the_server_after_the_delay_and_another_signal_at_once(
    tmp_path: Path, first: int, second: int | None, stops_after_s: float
) -> None:
    async def test(sock: socket.socket) -> None:
        harness = Harness(tmp_path, sock, stop_delay_s=5.0)
        harness.server.servers = []
        assert not await harness.server.on_tick(1)
        harness.server.handle_exit(first, None)
        assert harness.state.is_draining
        if second is not None:
            harness.server.handle_exit(second, None)
        if stops_after_s:
            harness.clock.now_s += stops_after_s - 0.1
            assert not await harness.server.on_tick(1)
            harness.clock.now_s += 0.1
        assert await harness.server.on_tick(1)
        assert not harness.state.is_closing

    with socket.create_server(("127.0.0.1", 0)) as sock:
        asyncio.run(test(sock))
