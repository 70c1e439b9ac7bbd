"""Runs several workers on one socket: starts them, restarts those that died, and stops them on SIGTERM."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from types import FrameType

from service.observability import logs
from service.workers.shutdown import drop_new_connections
from service.workers.worker_status import WorkerStatusStore

# A worker that dies sooner than this after its start is restarted only after a delay, doubled each time.
MIN_STABLE_S = 10.0
MAX_RESTART_DELAY_S = 10.0
KILL_GRACE_S = 5.0  # past the drain timeout
CLEAN_EXIT_CODES = (0, -signal.SIGTERM)  # the latter where a worker had not begun to serve

WorkerTarget = Callable[[socket.socket, int], None]


class Supervisor:
    """Runs `target(socket, worker_id)` in each of `workers` processes."""

    def __init__(
        self,
        target: WorkerTarget,
        sock: socket.socket,
        status_store: WorkerStatusStore,
        workers: int,
        drain_timeout_s: float,
    ) -> None:
        self._target = target
        self._sock = sock
        self._status_store = status_store
        self._drain_timeout_s = drain_timeout_s
        self._workers = [_WorkerProcess(worker_id) for worker_id in range(workers)]
        self._wake_reader, self._wake_writer = os.pipe()

    def run(self) -> bool:
        """Runs until SIGTERM or SIGINT and the end of all workers. Returns whether all of them ended well."""
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, self._on_signal)
        while not self._is_stopping:
            self._start_missing_workers()
            self._wait_for_event()
            self._reap_dead_workers()
        return self._stop_workers()

    _is_stopping = False

    def _on_signal(self, signal_number: int, frame: FrameType | None) -> None:
        self._is_stopping = True
        os.write(self._wake_writer, b"!")

    def _start_missing_workers(self) -> None:
        for worker in self._workers:
            if worker.process is None and time.monotonic() >= worker.next_start_s:
                worker.start(self._target, self._sock)

    def _wait_for_event(self) -> None:
        """Waits until a worker ends, a restart is due, or a signal arrives."""
        delays_s = [worker.next_start_s - time.monotonic() for worker in self._workers if worker.process is None]
        sentinels = [worker.process.sentinel for worker in self._workers if worker.process is not None]
        multiprocessing.connection.wait([*sentinels, self._wake_reader], max(0.0, min(delays_s)) if delays_s else None)

    def _reap_dead_workers(self) -> None:
        for worker in self._workers:
            if worker.process is not None and not worker.process.is_alive():
                self._status_store.absorb_dead_worker(worker.worker_id, worker.process.pid or 0)
                worker.handle_exit()

    def _stop_workers(self) -> bool:
        drop_new_connections(self._sock)
        self._sock.close()  # the workers close theirs; then no client can connect
        alive = [worker.process for worker in self._workers if worker.process is not None]
        for process in alive:
            process.terminate()
        end_s = time.monotonic() + self._drain_timeout_s + KILL_GRACE_S
        for process in alive:
            process.join(max(0.0, end_s - time.monotonic()))
            if process.is_alive():
                logs.event(logging.ERROR, "worker is killed", pid=process.pid)
                process.kill()
                process.join()
        return all(process.exitcode in CLEAN_EXIT_CODES for process in alive)


class _WorkerProcess:
    """One worker: its current process, and when to start the next one."""

    def __init__(self, worker_id: int) -> None:
        self.worker_id = worker_id
        self.process: SpawnProcess | None = None
        self.next_start_s = 0.0
        self._started_s = 0.0
        self._restart_delay_s = 0.0

    def start(self, target: WorkerTarget, sock: socket.socket) -> None:
        self._started_s = time.monotonic()
        self.process = multiprocessing.get_context("spawn").Process(
            target=target, args=(sock, self.worker_id), name=f"worker {self.worker_id}"
        )
        self.process.start()
        logs.event(logging.INFO, "worker is started", worker=self.worker_id, pid=self.process.pid)

    def handle_exit(self) -> None:
        assert self.process is not None
        logs.event(
            logging.ERROR, "worker died", worker=self.worker_id, pid=self.process.pid, code=self.process.exitcode
        )
        self.process.close()
        self.process = None
        is_short_lived = time.monotonic() - self._started_s < MIN_STABLE_S
        self._restart_delay_s = min(MAX_RESTART_DELAY_S, 2 * self._restart_delay_s or 0.5) if is_short_lived else 0.0
        self.next_start_s = time.monotonic() + self._restart_delay_s
