"""The server publishes its number of connections to the other workers whenever it changes."""

import asyncio
import os
import socket
from functools import partial
from pathlib import Path

import uvicorn
from starlette.types import Receive, Scope, Send

from service.server.acceptor import NOT_ACCEPTING, ConnectionCounts
from service.server.connection_limits import LimitedProtocol
from service.server.limits import ConnectionLimits
from service.server.worker import WorkerServer
from service.settings import Settings
from service.workers.shutdown import ShutdownState


class IdleRegistry:
    has_tried_all = True

    def is_unavailable(self) -> bool:
        return False


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError


class RecordingCounts(ConnectionCounts):
    """Records the published numbers."""

    def __init__(self, file: Path, worker_id: int, workers: int) -> None:
        super().__init__(file, worker_id, workers)
        self.connections = 0
        self._changed = asyncio.Event()

    def publish(self, connections: int) -> None:
        super().publish(connections)
        self.connections = connections
        self._changed.set()

    async def until(self, connections: int) -> None:
        async with asyncio.timeout(30):
            while self.connections != connections:
                self._changed.clear()
                await self._changed.wait()


async def connect_and_disconnect(sock: socket.socket, connection_counts: RecordingCounts) -> None:
    protocol = partial(LimitedProtocol, ConnectionLimits.from_settings(Settings()), lambda status: None)
    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None)  # type: ignore[arg-type]
    config.load()
    server = WorkerServer(config, ShutdownState(), IdleRegistry(), os.getpid(), connection_counts, 33.0)  # type: ignore[arg-type]
    server.lifespan = config.lifespan_class(config)
    await server.startup([sock])  # without its main loop, which publishes ten times per second
    clients = [await asyncio.open_connection(*sock.getsockname()) for _ in range(3)]
    await connection_counts.until(3)
    for closed_count, (_, writer) in enumerate(clients):
        writer.close()
        await connection_counts.until(2 - closed_count)
    await server.shutdown([sock])
    assert connection_counts.connections == NOT_ACCEPTING


def test_the_end_of_a_connection_is_reported_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        asyncio.run(connect_and_disconnect(sock, RecordingCounts(tmp_path / "connections", 0, 2)))
