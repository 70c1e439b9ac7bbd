"""uvicorn with a graceful shutdown: SIGTERM fails readiness, accepted requests are answered, the exit code is 0."""

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from service import malloc
from service.app import BATCH_DRAIN_S, SPAN_EXPORT_S, create_app
from service.loaded_models.registry import Registry
from service.model_store.desired_state import StateFile
from service.observability import logs
from service.server.acceptor import Acceptor, ConnectionCounts
from service.server.connection_limits import ConnectionLimits, LimitedProtocol
from service.settings import Settings, split_list
from service.workers.shutdown import ShutdownState, drop_new_connections
from service.workers.worker_status import WorkerStatusStore

# A client that was just answered may have its next request on the wire. Its connection stays open for as long as a busy
# client takes to send one. When all connections are closed, the wait ends.
LAST_REQUEST_GRACE_S = 1.0
POLL_INTERVAL_S = 0.02
SIGNAL_POLL_S = 0.3  # uvicorn polls for signals every 0.1 s
SWITCH_INTERVAL_S = 0.0005
# With a thousand requests under way Python would look for garbage in all of them again and again: by default after
# 700 new objects, which is about a dozen requests. Nearly all garbage here goes without that.
GC_THRESHOLDS = (50_000, 20, 50)
STOP_OVERHEAD_S = LAST_REQUEST_GRACE_S + BATCH_DRAIN_S + SPAN_EXPORT_S + SIGNAL_POLL_S


class WorkerServer(uvicorn.Server):
    """A uvicorn server that records its progress in `shutdown_state` and ends when the process `parent_pid` ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        shutdown_state: ShutdownState,
        registry: Registry,
        parent_pid: int,
        connection_counts: ConnectionCounts,
    ) -> None:
        super().__init__(config)
        self._shutdown_state = shutdown_state
        self._registry = registry
        self._parent_pid = parent_pid
        self._connection_counts = connection_counts
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        connections = self.server_state.connections
        self._acceptors = [
            Acceptor(sock, self._protocol, connections, self._connection_counts, self._registry.is_loading)
            for sock in sockets or []
        ]
        self.servers.extend(self._acceptors)  # type: ignore[arg-type]

    async def on_tick(self, counter: int) -> bool:
        self._publish_connections()
        is_orphaned = self._parent_pid not in (os.getpid(), os.getppid())
        return await super().on_tick(counter) or is_orphaned

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._shutdown_state.is_draining = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._shutdown_state.is_draining = True
        for acceptor in self._acceptors:
            acceptor.close()
        for listener in sockets or []:
            if self._parent_pid == os.getpid():  # alone; where it is one of several, the others may stay
                drop_new_connections(listener)
            await self._drain_backlog(listener)
        self._shutdown_state.is_closing = True
        await self._drain_connections()
        await super().shutdown(sockets)

    async def _drain_connections(self) -> None:
        """Answers requests that still arrive over open connections. Each connection ends with its next answer."""
        for _ in range(round(LAST_REQUEST_GRACE_S / POLL_INTERVAL_S)):
            if not self.server_state.connections:
                return
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _drain_backlog(self, listener: socket.socket) -> None:
        """Accepts the connections that the kernel has completed, because closing the socket would reset them. Closes
        the socket as soon as there are none."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                listener.close()
                return
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        protocol_class = self.config.http_protocol_class
        return protocol_class(  # type: ignore
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            on_closed=self._publish_connections,
        )

    def _publish_connections(self) -> None:
        for acceptor in self._acceptors:
            acceptor.publish()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn would raise them again and end with 143, as if it had been cut off.
            self._captured_signals.clear()


def run_worker(settings: Settings, folder: Path, parent_pid: int, sock: socket.socket, worker_id: int) -> None:
    """Serves on the socket in this process. The workers share `folder`, and end with the process `parent_pid`."""
    gc.set_threshold(*GC_THRESHOLDS)
    # Beside a busy thread the event loop would wait 5 ms, Python's default, each time it needs the interpreter.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    malloc.configure()
    logs.configure(settings.log_level, **({"worker": worker_id} if settings.workers > 1 else {}))
    state = StateFile(settings.state or folder / "state.json")
    app = create_app(settings, WorkerStatusStore(folder, worker_id, settings.workers), state)
    gc.freeze()  # libraries and routes stay to the end
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(
            LimitedProtocol, ConnectionLimits.from_settings(settings), app.state.metrics.count_unrouted_request
        ),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=split_list(settings.trusted_proxies),
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(0.0, settings.drain_timeout_s - STOP_OVERHEAD_S),  # type: ignore[arg-type]
    )
    connection_counts = ConnectionCounts(folder / "connections", worker_id, settings.workers)
    WorkerServer(config, app.state.shutdown_state, app.state.registry, parent_pid, connection_counts).run(
        sockets=[sock]
    )
    # A regular exit would wait for threads that are still running.
    force_exit = partial(_force_exit, folder if parent_pid == os.getpid() else None)
    if app.state.shutdown_state.has_timed_out:
        force_exit(1, "a model is still at work; it is cut off")
    if version := app.state.registry.loading_version:
        force_exit(0, "a version is still being loaded; it is cut off", version=version)
    if app.state.explainer.is_busy:
        force_exit(0, "an explanation is still being made; it is cut off")


def _force_exit(folder: Path | None, code: int, message: str, **fields: str) -> NoReturn:
    """Ends the process now, with code 0 when no client waits for an answer; removes `folder` where it is given."""
    logs.event(logging.ERROR if code else logging.WARNING, message, **fields)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)
