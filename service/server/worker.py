"""uvicorn, with a stop that loses nothing: SIGTERM fails readiness, answers what was accepted, and ends with 0."""

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
from service.app import LAST_BATCHES_S, LAST_SPANS_S, create_app
from service.loaded_models.registry import Registry
from service.model_store.desired_state import StateFile
from service.observability import logs
from service.server.acceptor import Acceptor, ConnectionCounts
from service.server.connection_limits import LimitedProtocol, Limits
from service.settings import Settings, split
from service.workers.shutdown import Lifecycle, drop_new_connections
from service.workers.worker_status import WorkerStatusStore

# A client that was just answered may have its next request on the wire: its connection is not closed under it, for as
# long as a busy client takes to send one. Once all have gone, nothing is waited for.
LAST_REQUEST_GRACE_S = 1.0
LOOK_EVERY_S = 0.02
NOTICE_S = 0.3  # uvicorn looks for a signal every 0.1 s
SWITCH_INTERVAL_S = 0.0005
# With a thousand requests under way Python would look for garbage in all of them again and again: by default after
# 700 new objects, which is about a dozen requests. Nearly all garbage here goes without that.
GC_THRESHOLDS = (50_000, 20, 50)
STOP_OVERHEAD_S = LAST_REQUEST_GRACE_S + LAST_BATCHES_S + LAST_SPANS_S + NOTICE_S


class Server(uvicorn.Server):
    """A uvicorn server that tells `lifecycle` how far its stop has come, and does not outlive process `parent`."""

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        registry: Registry,
        parent: int,
        connection_counts: ConnectionCounts,
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._registry = registry
        self._parent = parent
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
        self._tell()
        orphaned = self._parent not in (os.getpid(), os.getppid())
        return await super().on_tick(counter) or orphaned

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._lifecycle.stopping = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._lifecycle.stopping = True
        for acceptor in self._acceptors:
            acceptor.close()
        for listener in sockets or []:
            if self._parent == os.getpid():  # alone; where it is one of several, the others may stay
                drop_new_connections(listener)
            await self._drain_backlog(listener)
        self._lifecycle.closing = True
        await self._drain_connections()
        await super().shutdown(sockets)

    async def _drain_connections(self) -> None:
        """Answers what still comes over open connections, each of which ends with its next answer."""
        for _ in range(round(LAST_REQUEST_GRACE_S / LOOK_EVERY_S)):
            if not self.server_state.connections:
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _drain_backlog(self, listener: socket.socket) -> None:
        """Takes the connections that the kernel has completed and the loop has not seen, for closing resets them; and
        closes in the very moment when there are none."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                listener.close()
                return
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        kind = self.config.http_protocol_class
        return kind(  # type: ignore
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, ended=self._tell
        )

    def _tell(self) -> None:
        for acceptor in self._acceptors:
            acceptor.tell()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn would raise them again and end with 143, as if it had been cut off.
            self._captured_signals.clear()


def work(settings: Settings, folder: Path, parent: int, sock: socket.socket, slot: int) -> None:
    """Serves on the socket in this process; `folder` is where the workers meet, `parent` whom they end with."""
    gc.set_threshold(*GC_THRESHOLDS)
    # Beside a busy thread the event loop would wait 5 ms, Python's default, each time it needs the interpreter.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    malloc.configure()
    logs.configure(settings.log_level, **({"worker": slot} if settings.workers > 1 else {}))
    state = StateFile(settings.state or folder / "state.json")
    app = create_app(settings, WorkerStatusStore(folder, slot, settings.workers), state)
    gc.freeze()  # libraries and routes stay to the end
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(LimitedProtocol, Limits.of(settings), app.state.metrics.count_unrouted_request),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=split(settings.trusted_proxies),
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(0.0, settings.drain_timeout_s - STOP_OVERHEAD_S),  # type: ignore[arg-type]
    )
    connection_counts = ConnectionCounts(folder / "connections", slot, settings.workers)
    Server(config, app.state.lifecycle, app.state.registry, parent, connection_counts).run(sockets=[sock])
    # An ordinary end would wait for the thread of what is still at work.
    cut_off = partial(_force_exit, folder if parent == os.getpid() else None)
    if app.state.lifecycle.gave_up:
        cut_off(1, "a model is still at work; it is cut off")
    if loaded := app.state.registry.being_loaded:
        cut_off(0, "a version is still being loaded; it is cut off", version=loaded)
    if app.state.explainer.is_busy:
        cut_off(0, "an explanation is still being made; it is cut off")


def _force_exit(own: Path | None, code: int, what: str, **fields: str) -> NoReturn:
    """Ends the process now, with 0 where nobody waits for an answer; `own` is a folder that only it would remove."""
    logs.event(logging.ERROR if code else logging.WARNING, what, **fields)
    if own is not None:
        shutil.rmtree(own, ignore_errors=True)
    os._exit(code)
