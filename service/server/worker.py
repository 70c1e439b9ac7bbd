"""uvicorn with a graceful shutdown: SIGTERM fails readiness, and accepted requests are answered.

The exit code is 0, or EXIT_REQUESTS_LOST when some requests could not be answered within the drain timeout.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn

from service import malloc
from service.app import BATCH_DRAIN_S, SPAN_EXPORT_S, create_app
from service.inference.cuda_devices import check_gpu_works, load_driver
from service.loaded_models.registry import Registry
from service.loaded_models.session_opener import why_not_openvino
from service.model_store.desired_state import StateFile
from service.observability import logs
from service.server.acceptor import NOT_ACCEPTING, Acceptor, ConnectionCounts
from service.server.connection_cap import (
    DEFAULT_MAX_CONNECTIONS,
    ConnectionCap,
    effective_max_connections,
    raise_file_limit,
)
from service.server.connection_limits import LimitedProtocol
from service.server.drain import drain_backlog, end_idle_connections
from service.server.limits import ConnectionLimits
from service.server.listener import start_listening
from service.server.start_report import local_url, log_start
from service.settings import Settings, split_list
from service.workers.drop_new_connections import drop_new_connections
from service.workers.shutdown import (
    EXIT_REQUESTS_LOST,
    LOST_REQUESTS_ACTION,
    ShutdownState,
    force_exit_now,
)
from service.workers.worker_status import WorkerStatusStore

# A client that was just answered may already be sending its next request. Its connection therefore stays open for the
# time that a busy client needs to send a request. The wait ends early when all connections are closed.
LAST_REQUEST_GRACE_S = 1.0
POLL_INTERVAL_S = 0.02
SIGNAL_POLL_S = 0.3  # uvicorn polls for signals every 0.1 s
REJECTION_S = 0.3  # for answering the requests that are rejected at the end of the drain timeout
MIN_REJECTION_TURNS = 10
"""Turns of the event loop for these answers, however long they take: a thread that parses a large body can hold the GIL
for longer than REJECTION_S, and the answers would be lost without a turn in which to write them."""
GIVEN_UP_S = 5.0
"""The time after a second SIGINT for clients that are still sending to receive their responses."""
SWITCH_INTERVAL_S = 0.0005
# With a thousand open requests, Python's garbage collector would scan all of them again and again: by default after 700
# new objects, which are about a dozen requests. Reference counting alone frees nearly all garbage here.
GC_THRESHOLDS = (50_000, 20, 50)
STOP_OVERHEAD_S = REJECTION_S + BATCH_DRAIN_S + SPAN_EXPORT_S
"""The last seconds of the drain timeout, in which the worker no longer waits for requests."""


class WorkerServer(uvicorn.Server):
    """A uvicorn server that records its progress in `shutdown_state` and ends when the process `parent_pid` ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        shutdown_state: ShutdownState,
        registry: Registry,
        parent_pid: int,
        connection_counts: ConnectionCounts,
        drain_timeout_s: float,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        url: str = "",
        clock: Callable[[], float] = time.monotonic,
        stop_delay_s: float = 0.0,
    ) -> None:
        """After a signal, the server continues to serve for `stop_delay_s` while readiness fails. The process then ends
        within `drain_timeout_s`. With a `url`, the line `ready` is logged when the start is complete."""
        super().__init__(config)
        self._url = url
        self._shutdown_state = shutdown_state
        self._registry = registry
        self._parent_pid = parent_pid
        self._connection_counts = connection_counts
        self._drain_timeout_s = drain_timeout_s
        self._cap = ConnectionCap(max_connections, self.server_state.connections)
        self._clock = clock
        self._stop_delay_s = stop_delay_s
        self._stop_requested_s: float | None = None
        self._has_given_up = False
        self._sockets: list[socket.socket] = []
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self._sockets = sockets or []
        self._listen_once_loaded()

    def _listen_once_loaded(self) -> None:
        """Opens the port after one attempt to load each model, successful or not. Until then,
        connections are refused immediately, so that clients and load balancers use another instance."""
        if self._acceptors or not self._registry.has_tried_all:
            return
        connections = self.server_state.connections
        counts, is_unavailable = self._connection_counts, self._registry.is_unavailable
        for sock in self._sockets:
            start_listening(sock)
        self._acceptors = [
            Acceptor(sock, self._protocol, connections, counts, is_unavailable, self._cap) for sock in self._sockets
        ]
        logs.event(logging.INFO, "accepting connections", pid=os.getpid())
        if self._url:
            log_start(self._url, self._registry)

    async def on_tick(self, counter: int) -> bool:
        self._publish_connections()
        self._listen_once_loaded()
        is_orphaned = self._parent_pid not in (os.getpid(), os.getppid())
        is_delay_over = self._stop_requested_s is not None and self._clock() >= self._stop_requested_s
        return await super().on_tick(counter) or is_orphaned or is_delay_over

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops the server, after the delay for a first SIGTERM. On SIGINT while the server stops, cancels the
        remaining requests.

        On a second SIGINT, uvicorn itself would exit without the shutdown of the application, and log a traceback.
        """
        is_delayed = sig == signal.SIGTERM and self._stop_delay_s > 0 and self._stop_requested_s is None
        self._start_draining(self._stop_delay_s if is_delayed else 0.0)
        if is_delayed:
            return
        super().handle_exit(sig, frame)
        self._has_given_up, self.force_exit = self._has_given_up or self.force_exit, False

    def _start_draining(self, delay_s: float = 0.0) -> None:
        self._shutdown_state.is_draining = True
        stop_s = self._clock() + delay_s
        self._stop_requested_s = stop_s if self._stop_requested_s is None else min(stop_s, self._stop_requested_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._start_draining()
        logs.event(logging.INFO, "stopping", pid=os.getpid(), connections=len(self.server_state.connections))
        for acceptor in self._acceptors:
            acceptor.close()
            await acceptor.wait_closed()
        for listener in sockets or []:
            if self._parent_pid == os.getpid():  # with several workers, the others may continue to accept connections
                drop_new_connections(listener)
            await drain_backlog(listener, self._protocol)
        self._shutdown_state.is_closing = True
        await self._drain_connections()
        await self._answer_accepted_requests()
        # uvicorn's own `shutdown` would also wait for connections, and log an error if one is still open.
        await self.lifespan.shutdown()
        logs.event(logging.INFO, "stopped", pid=os.getpid())

    async def _drain_connections(self) -> None:
        """Waits for requests that still arrive over open connections. Each connection is closed after its next
        response."""
        for _ in range(round(LAST_REQUEST_GRACE_S / POLL_INTERVAL_S)):
            if not self.server_state.connections:
                return
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _answer_accepted_requests(self) -> None:
        """Waits until every request is answered, which closes its connection. Rejects the remaining requests near the
        end of the drain timeout, or on a second SIGINT.

        A connection whose client is still sending is closed when the client has stopped: see LingeringClose.
        """
        assert self._stop_requested_s is not None
        end_s = self._stop_requested_s + self._drain_timeout_s - STOP_OVERHEAD_S
        await self._wait_for_connections(lambda: self._has_given_up or self._clock() >= end_s)
        if self.server_state.connections or self.server_state.tasks:
            self._shutdown_state.is_rejecting = True
            for task in list(self.server_state.tasks):
                task.cancel()
            for _ in range(MIN_REJECTION_TURNS):
                await asyncio.sleep(0)
            now_s = self._clock()
            last_s = min(now_s + GIVEN_UP_S, max(end_s, now_s) + REJECTION_S)
            await self._wait_for_connections(lambda: self._clock() >= last_s)

    async def _wait_for_connections(self, is_over: Callable[[], bool]) -> None:
        """Waits until all connections and tasks have ended, or the wait `is_over`."""
        while self.server_state.connections or self.server_state.tasks:
            end_idle_connections(self.server_state.connections)
            if is_over():
                return
            await asyncio.sleep(POLL_INTERVAL_S)

    def _protocol(self) -> asyncio.Protocol:
        protocol_class = self.config.http_protocol_class
        return protocol_class(  # type: ignore
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            on_closed=self._publish_connections,
            is_for_health_checks=self._cap.is_reached(len(self.server_state.connections)),
        )

    def _publish_connections(self) -> None:
        for acceptor in self._acceptors:
            acceptor.publish()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by the supervisor until now
            yield
            # uvicorn would raise the signals again and exit with 143, as if it had been killed.
            self._captured_signals.clear()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):  # the process is ending; a signal would cause a traceback
                signal.signal(number, signal.SIG_IGN)


def run_worker(settings: Settings, folder: Path, parent_pid: int, sock: socket.socket, worker_id: int) -> None:
    """Serves on the socket in this process. Workers share `folder`, and exit when the process `parent_pid` exits.

    Raises UnusableGpu if the GPU of this worker does not work.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    # With Python's default of 5 ms, the event loop waits that long for the GIL whenever another thread is busy.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    malloc.configure()
    raise_file_limit()
    logs.configure(settings.log_level, settings.log_format, **({"worker": worker_id} if settings.workers > 1 else {}))
    connection_counts = ConnectionCounts(folder / "connections", worker_id, settings.workers)
    connection_counts.publish(NOT_ACCEPTING)  # replaces the count of a worker that died
    if (gpu := settings.gpu_of(worker_id)) is not None:
        check_gpu_works(load_driver(), gpu)
    state_file = StateFile(settings.state or folder / "state.json")
    if worker_id == 0 and (reason := why_not_openvino(settings)):
        logs.event(logging.INFO, "models run on onnxruntime's own engine", reason=reason)
    app = create_app(settings, WorkerStatusStore(folder, worker_id, settings.workers), state_file)
    gc.freeze()  # libraries and routes are never freed, so the garbage collector need not scan them
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(LimitedProtocol, ConnectionLimits.from_settings(settings), app.state.record_unrouted_request),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=split_list(settings.trusted_proxies),
        timeout_keep_alive=settings.keep_alive_s,
    )
    state = app.state.shutdown_state
    WorkerServer(
        config,
        state,
        app.state.registry,
        parent_pid,
        connection_counts,
        settings.effective_drain_timeout_s,
        effective_max_connections(settings.max_connections),
        url=local_url(sock, settings.root_path) if worker_id == 0 else "",
        stop_delay_s=settings.stop_delay_s if settings.workers == 1 else 0.0,  # otherwise the supervisor waits
    ).run(sockets=[sock])
    exit_code = EXIT_REQUESTS_LOST if state.lost_requests else 0
    if exit_code:
        event = "accepted requests were lost"
        logs.event(logging.ERROR, event, requests=state.lost_requests, action=LOST_REQUESTS_ACTION)
    # A regular exit waits for threads that are still running.
    force_exit = partial(force_exit_now, folder if parent_pid == os.getpid() else None, exit_code)
    if state.is_model_running:
        force_exit("a model is still running; it is aborted")
    if version := app.state.registry.loading_version:
        force_exit("a version is still being loaded; it is aborted", version=version)
    if app.state.explainer.is_busy:
        force_exit("an explanation is still running; it is aborted")
    if exit_code:
        sys.exit(exit_code)
