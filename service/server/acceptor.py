"""Workers share one listening socket; this is how each gets its part of the connections.

Left to itself the event loop that wakes first takes all connections that wait, and keeps them as long as clients keep
them alive: 32 clients that came at once were all answered by one of two workers, at half the throughput.
"""

import asyncio
import logging
import mmap
import socket
from collections.abc import Callable, Sized
from pathlib import Path

from service.observability import logs

GRACE_S = 0.005  # longer than a process waits for its turn on a busy core
EXHAUSTED_PAUSE_S = 1.0
UNEVEN = 32  # of so many connections one more is not uneven: a thousand that come at once are not counted out singly
AT_ONCE = 64  # a turn: connections wait for nothing but each other, requests for all of them
ABSENT = -1
MORE_THAN_ANYBODY = 2**62
BYTES = 8


class ConnectionCounts:
    """How many connections each worker has: a few integers in a file that all of them map into memory.

    Each writes its own only, and a stale one costs a connection no more than `GRACE_S`, so there are no locks.
    """

    def __init__(self, file: Path, slot: int, workers: int) -> None:
        with file.open("a+b") as opened:
            opened.truncate(BYTES * workers)
            self._counts = memoryview(mmap.mmap(opened.fileno(), BYTES * workers)).cast("q")
        self._slot = slot

    def tell(self, connections: int) -> None:
        """So many this worker has; `ABSENT` when it takes none."""
        self._counts[self._slot] = connections + 1  # a new file is all zeros, and so is everybody absent

    def has_more_than_others(self, connections: int) -> bool:
        """Whether somebody else, who takes connections, has fewer; of many, clearly fewer."""
        others = (count - 1 for slot, count in enumerate(self._counts) if slot != self._slot)
        return any(other > ABSENT and other + other // UNEVEN < connections for other in others)


class Acceptor:
    """Takes the connections that wait, and leaves them for a moment to a worker that has fewer.

    It stands in uvicorn's list of servers, and has what is called there.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Sized,
        connection_counts: ConnectionCounts,
        is_loading: Callable[[], bool],
    ) -> None:
        """While it is loading, a worker that replaces a dead one leaves all connections to the others."""
        self._sock = sock
        self._protocol = protocol
        self._connections = connections
        self._connection_counts = connection_counts
        self._is_loading = is_loading
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._listen()
        self.tell()

    def tell(self) -> None:
        """Tells the others how many connections there are, or that none are taken: while it is loading, and closed.

        To be called when one has gone, too: of eight clients that came right after others, who had left, one worker
        often got six to eight.
        """
        self._connection_counts.tell(ABSENT if self._is_closed or self._is_loading() else self._count())

    def close(self) -> None:
        """Takes no more. May be called again when the socket is closed."""
        if (listening := self._sock.fileno()) >= 0:
            self._loop.remove_reader(listening)
        if self._pause is not None:
            self._pause.cancel()
        self._is_closed = True
        self.tell()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._opening)

    def _count(self) -> int:
        return len(self._connections) + len(self._opening)

    def _listen(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._on_waiting)

    def _on_waiting(self) -> None:
        if self._others_come_first():
            self._pause_accepting(GRACE_S)
            return
        for _ in range(AT_ONCE):
            if not self._accept() or self._others_come_first():
                return  # and come again at once, should more be waiting

    def _others_come_first(self) -> bool:
        return self._connection_counts.has_more_than_others(MORE_THAN_ANYBODY if self._is_loading() else self._count())

    def _pause_accepting(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._pause = self._loop.call_later(seconds, self._come_back)

    def _come_back(self) -> None:
        self._listen()
        for _ in range(1 + self._count() // UNEVEN):  # nobody else came for them
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Whether there was a connection to take."""
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False  # another worker took it, or the client is gone
        except OSError as error:
            logs.event(logging.ERROR, "connections cannot be taken", reason=str(error))
            self._pause_accepting(EXHAUSTED_PAUSE_S)
            return False
        connection.setblocking(False)
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        self.tell()
        return True

    def _opened(self, opening: asyncio.Task[None]) -> None:
        """Until now it counted twice, once as open."""
        self._opening.discard(opening)
        self.tell()

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()  # the client is gone
