"""Connections go to the worker with the fewest connections; absent, slow and stale workers cause no waiting."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.server.acceptor import IMBALANCE_DIVISOR, NOT_ACCEPTING, Acceptor, ConnectionCounts
from service.server.connection_cap import HEALTH_RESERVE, ClientWait, ConnectionCap


class RecordingProtocol(asyncio.Protocol):
    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self.is_waiting = False
        self.client = ("127.0.0.1", 1)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._worker.connections.add(self)
        self._worker.changed.set()

    def client_wait(self) -> ClientWait | None:
        return ClientWait(0, 0.0) if self.is_waiting else None

    def evict(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.connections.discard(self)
        self._worker.changed.set()


class Worker:
    def __init__(
        self,
        sock: socket.socket,
        connection_counts: ConnectionCounts,
        is_unavailable: bool = False,
        max_connections: int = 10_000,
    ) -> None:
        self.connections: set[RecordingProtocol] = set()
        self.changed = asyncio.Event()
        self.acceptor = Acceptor(
            sock,
            lambda: RecordingProtocol(self),
            self.connections,
            connection_counts,
            lambda: is_unavailable,
            ConnectionCap(max_connections, self.connections),
        )

    async def until(self, connections: int) -> None:
        async with asyncio.timeout(30):
            while len(self.connections) != connections:
                self.changed.clear()
                await self.changed.wait()

    async def until_gone(self, connection: RecordingProtocol) -> None:
        async with asyncio.timeout(30):
            while connection in self.connections:
                self.changed.clear()
                await self.changed.wait()

    async def until_at_least(self, connections: int) -> None:
        async with asyncio.timeout(30):
            while len(self.connections) < connections:
                self.changed.clear()
                await self.changed.wait()

    async def end(self) -> None:
        await self.until(0)
        self.acceptor.close()
        await self.acceptor.wait_closed()


def connection_counts_of(folder: Path, count: int) -> list[ConnectionCounts]:
    return [ConnectionCounts(folder / "connections", worker_id, count) for worker_id in range(count)]


def run(scenario: Callable[[socket.socket], Awaitable[None]]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        sock.setblocking(False)
        asyncio.run(scenario(sock))


def connect(sock: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(sock.getsockname()) for _ in range(count)]


def close_all(clients: list[socket.socket]) -> None:
    for client in clients:
        client.close()


def test_connection_counts_show_which_worker_has_fewer(tmp_path: Path) -> None:
    one, two, three = connection_counts_of(tmp_path, 3)
    assert not one.has_more_than_others(5), "there is no other worker yet"
    two.publish(5)
    assert not one.has_more_than_others(5)
    assert one.has_more_than_others(6)
    three.publish(0)
    assert one.has_more_than_others(1)
    assert not one.has_more_than_others(0)
    three.publish(NOT_ACCEPTING)
    assert not one.has_more_than_others(5)


def test_a_small_imbalance_is_tolerated(tmp_path: Path) -> None:
    one, two = connection_counts_of(tmp_path, 2)
    two.publish(IMBALANCE_DIVISOR - 1)
    assert one.has_more_than_others(IMBALANCE_DIVISOR)
    two.publish(IMBALANCE_DIVISOR)
    assert not one.has_more_than_others(IMBALANCE_DIVISOR + 1)
    assert one.has_more_than_others(IMBALANCE_DIVISOR + 2)


def test_simultaneous_connections_are_shared(tmp_path: Path) -> None:
    async def scenario(sock: socket.socket) -> None:
        one, two = connection_counts_of(tmp_path, 2)
        with sock.dup() as duplicate:  # a loop watches a descriptor for one reader only
            workers = (Worker(sock, one), Worker(duplicate, two))
            clients = connect(sock, 20)
            for worker in workers:
                await worker.until_at_least(8)
            close_all(clients)
            for worker in workers:
                await worker.end()

    run(scenario)


def test_the_last_published_number_is_the_number_of_connections(tmp_path: Path) -> None:
    """A connection briefly counts as both opening and open, and no later event would correct the published number."""

    async def scenario(sock: socket.socket) -> None:
        one, two = connection_counts_of(tmp_path, 2)
        worker = Worker(sock, one)
        clients = connect(sock, 1)
        await worker.until(1)
        worker.acceptor.publish()  # as if another connection ended at this moment
        for _ in range(10):
            await asyncio.sleep(0)
        assert two.has_more_than_others(2), "the published number is too high"
        assert not two.has_more_than_others(1)
        close_all(clients)
        await worker.end()

    run(scenario)


def test_a_missing_worker_keeps_no_other_waiting(tmp_path: Path) -> None:
    async def scenario(sock: socket.socket) -> None:
        one, two = connection_counts_of(tmp_path, 2)
        two.publish(0)  # this worker accepts no connection, because it is dead or busy
        worker = Worker(sock, one)
        clients = connect(sock, 20)
        await worker.until(20)
        close_all(clients)
        await worker.end()

    run(scenario)


def test_an_unavailable_worker_leaves_connections_to_other_workers(tmp_path: Path) -> None:
    async def scenario(sock: socket.socket) -> None:
        one, two = connection_counts_of(tmp_path, 2)
        with sock.dup() as duplicate:
            new, old = Worker(sock, one, is_unavailable=True), Worker(duplicate, two)
            clients = connect(sock, 20)
            await old.until(20)
            assert not new.connections
            close_all(clients)
            for worker in (new, old):
                await worker.end()

    run(scenario)


def test_an_unavailable_worker_accepts_connections_that_no_other_accepts(tmp_path: Path) -> None:
    async def scenario(sock: socket.socket) -> None:
        worker = Worker(sock, connection_counts_of(tmp_path, 2)[0], is_unavailable=True)
        clients = connect(sock, 3)
        await worker.until(3)
        close_all(clients)
        await worker.end()

    run(scenario)


def test_a_closed_worker_accepts_nothing_and_delays_no_other(tmp_path: Path) -> None:
    async def scenario(sock: socket.socket) -> None:
        one, two = connection_counts_of(tmp_path, 2)
        closed_worker = Worker(sock, one)
        closed_worker.acceptor.close()
        open_worker = Worker(sock, two)
        assert not two.has_more_than_others(9)
        clients = connect(sock, 3)
        await open_worker.until(3)
        assert not closed_worker.connections
        close_all(clients)
        await open_worker.end()

    run(scenario)


def test_without_descriptors_left_it_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted:
        """A listening socket whose first accept fails."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock
            self.failures = 1

        def fileno(self) -> int:
            return self._sock.fileno()

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures:
                self.failures -= 1
                raise OSError(24, "Too many open files")
            return self._sock.accept()

    async def scenario(sock: socket.socket) -> None:
        monkeypatch.setattr("service.server.acceptor.ACCEPT_ERROR_PAUSE_S", 0.01)
        worker = Worker(Exhausted(sock), connection_counts_of(tmp_path, 2)[0])  # type: ignore[arg-type]
        clients = connect(sock, 2)
        await worker.until(2)
        close_all(clients)
        await worker.end()

    run(scenario)


def test_waiting_connections_are_evicted_once_the_maximum_is_reached(tmp_path: Path) -> None:
    async def scenario(sock: socket.socket) -> None:
        (counts,) = connection_counts_of(tmp_path, 1)
        worker = Worker(sock, counts, max_connections=4)
        clients = connect(sock, 4)
        await worker.until(4)
        first = next(iter(worker.connections))
        first.is_waiting = True
        clients += connect(sock, 1)
        await worker.until_gone(first)
        await worker.until(4)
        clients += connect(sock, HEALTH_RESERVE + 3)
        await worker.until(4 + HEALTH_RESERVE)
        second = next(iter(worker.connections))
        second.is_waiting = True
        await worker.until_gone(second)  # because of connections that still wait to be accepted
        assert len(worker.connections) == 4 + HEALTH_RESERVE - 1
        close_all(clients)
        await worker.end()

    run(scenario)
