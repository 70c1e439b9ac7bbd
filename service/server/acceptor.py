"""Balances connections over the workers that share one listening socket.

Without it, the event loop that wakes first accepts all waiting connections, and serves them for as long as clients keep
them open: when 32 clients connected at the same time, one of two workers served all of them, at half the throughput.
"""

import asyncio
import logging
import mmap
import socket
from collections.abc import Callable, Sized
from pathlib import Path

from service.observability import logs
from service.server.connection_cap import ConnectionCap

YIELD_S = 0.005  # longer than a process usually waits for a busy core
ACCEPT_ERROR_PAUSE_S = 1.0
FULL_PAUSE_S = 0.05
IMBALANCE_DIVISOR = 32  # tolerated imbalance: one connection per 32
MAX_ACCEPTS_PER_TURN = 64  # per iteration of the event loop, because requests wait while connections are accepted
NOT_ACCEPTING = -1
MORE_THAN_ANY_WORKER = 2**62
COUNT_BYTES = 8


class ConnectionCounts:
    """The number of connections of each worker, as integers in a file that all workers map into memory.

    Each worker writes only its own number. There are no locks, because a stale number only delays a connection by at
    most `YIELD_S`.
    """

    def __init__(self, file: Path, worker_id: int, workers: int) -> None:
        with file.open("a+b") as shared_file:
            shared_file.truncate(COUNT_BYTES * workers)
            self._counts = memoryview(mmap.mmap(shared_file.fileno(), COUNT_BYTES * workers)).cast("q")
        self._worker_id = worker_id

    def publish(self, connections: int) -> None:
        """Publishes the number of connections of this worker, or `NOT_ACCEPTING`."""
        self._counts[self._worker_id] = connections + 1  # zero, as in a new file, means that the worker does not accept

    def has_more_than_others(self, connections: int) -> bool:
        """Whether another accepting worker has fewer than `connections`, beyond the tolerated imbalance."""
        others = (count - 1 for worker_id, count in enumerate(self._counts) if worker_id != self._worker_id)
        return any(other > NOT_ACCEPTING and other + other // IMBALANCE_DIVISOR < connections for other in others)


class Acceptor:
    """Accepts waiting connections. If another worker has fewer connections, waits YIELD_S for it to accept them."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Sized,
        connection_counts: ConnectionCounts,
        is_unavailable: Callable[[], bool],
        cap: ConnectionCap,
    ) -> None:
        """An unavailable worker, such as one that is still loading, leaves all connections to the others."""
        self._sock = sock
        self._protocol = protocol
        self._connections = connections
        self._connection_counts = connection_counts
        self._is_unavailable = is_unavailable
        self._cap = cap
        self._loop = asyncio.get_running_loop()
        self._opening_tasks: set[asyncio.Task[None]] = set()
        self._resume_timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._start_accepting()
        self.publish()

    def publish(self) -> None:
        """Publishes the number of connections, or NOT_ACCEPTING while the worker is unavailable or the acceptor closed.

        Must also be called when a connection ends. Otherwise, if eight clients connect right after others have left,
        one worker often gets six to eight of them.
        """
        self._connection_counts.publish(NOT_ACCEPTING if self._is_closed or self._is_unavailable() else self._count())

    def close(self) -> None:
        """Stops accepting. May be called again after the socket was closed."""
        if (listener_fd := self._sock.fileno()) >= 0:
            self._loop.remove_reader(listener_fd)
        if self._resume_timer is not None:
            self._resume_timer.cancel()
        self._is_closed = True
        self.publish()

    async def wait_closed(self) -> None:
        """Waits until the accepted connections are open."""
        await asyncio.gather(*self._opening_tasks)

    def _count(self) -> int:
        return len(self._connections) + len(self._opening_tasks)

    def _start_accepting(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        if self._should_yield():
            self._pause_accepting(YIELD_S)
            return
        for _ in range(MAX_ACCEPTS_PER_TURN):
            if not self._accept() or self._should_yield():
                return  # the event loop calls this method again if more connections are waiting

    def _should_yield(self) -> bool:
        return self._connection_counts.has_more_than_others(
            MORE_THAN_ANY_WORKER if self._is_unavailable() else self._count()
        )

    def _pause_accepting(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._resume_timer = self._loop.call_later(seconds, self._resume_accepting)

    def _resume_accepting(self) -> None:
        self._start_accepting()
        for _ in range(1 + self._count() // IMBALANCE_DIVISOR):  # no other worker has accepted these connections
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Accepts a connection. Returns whether there was a connection, and the maximum allowed it."""
        if self._cap.is_reached(self._count()) and not self._may_exceed_cap():
            return False
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False  # another worker has accepted it, or the client has disconnected
        except OSError as error:
            logs.event(logging.ERROR, "connections cannot be accepted", reason=str(error))
            self._pause_accepting(ACCEPT_ERROR_PAUSE_S)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._open(connection))
        self._opening_tasks.add(task)
        task.add_done_callback(self._on_opened)
        self.publish()
        return True

    def _may_exceed_cap(self) -> bool:
        """Closes connections that wait for their clients, so that others can be accepted in the next iteration.

        If no connection can be closed, returns whether one more may be accepted for health checks, and pauses if not.
        """
        if self._cap.evict():
            return False
        if self._cap.is_reserve_full(self._count()):
            self._pause_accepting(FULL_PAUSE_S)
            return False
        return True

    def _on_opened(self, task: asyncio.Task[None]) -> None:
        """Publishes the number of connections again, because this connection was counted twice: as opening and as
        open."""
        self._opening_tasks.discard(task)
        self.publish()

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()  # the client has disconnected
