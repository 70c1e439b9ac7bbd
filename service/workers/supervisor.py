"""Several workers on one socket: starts them, replaces the dead, passes SIGTERM on, and ends when they have ended."""

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

# A worker that dies sooner than this after its start is replaced only after a pause, doubled each time.
STABLE_S = 10.0
LONGEST_PAUSE_S = 10.0
LAST_WORDS_S = 5.0  # past the drain timeout
ENDED_WELL = (0, -signal.SIGTERM)  # the latter is a worker's that had not begun to serve

Target = Callable[[socket.socket, int], None]


class Supervisor:
    """Runs `target(socket, slot)` in each of `workers` processes."""

    def __init__(
        self, target: Target, sock: socket.socket, status_store: WorkerStatusStore, workers: int, drain_timeout_s: float
    ) -> None:
        self._target = target
        self._sock = sock
        self._status_store = status_store
        self._drain_timeout_s = drain_timeout_s
        self._slots = [_Slot(number) for number in range(workers)]
        self._wake_reader, self._wake_writer = os.pipe()

    def run(self) -> bool:
        """Until SIGTERM or SIGINT and the end of all workers. Whether all of them ended well."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while not self._stopping:
            self._start_missing()
            self._wait()
            self._bury_dead()
        return self._stop()

    _stopping = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        os.write(self._wake_writer, b"!")

    def _start_missing(self) -> None:
        for slot in self._slots:
            if slot.process is None and time.monotonic() >= slot.start_at_s:
                slot.start(self._target, self._sock)

    def _wait(self) -> None:
        """Until a worker ends, a pause is over, or a signal comes."""
        pauses = [slot.start_at_s - time.monotonic() for slot in self._slots if slot.process is None]
        ends = [slot.process.sentinel for slot in self._slots if slot.process is not None]
        multiprocessing.connection.wait([*ends, self._wake_reader], max(0.0, min(pauses)) if pauses else None)

    def _bury_dead(self) -> None:
        for slot in self._slots:
            if slot.process is not None and not slot.process.is_alive():
                self._status_store.absorb_dead_worker(slot.number, slot.process.pid or 0)
                slot.ended()

    def _stop(self) -> bool:
        drop_new_connections(self._sock)
        self._sock.close()  # the workers close theirs; then nobody can connect any more
        alive = [slot.process for slot in self._slots if slot.process is not None]
        for process in alive:
            process.terminate()
        end_s = time.monotonic() + self._drain_timeout_s + LAST_WORDS_S
        for process in alive:
            process.join(max(0.0, end_s - time.monotonic()))
            if process.is_alive():
                logs.event(logging.ERROR, "worker is killed", pid=process.pid)
                process.kill()
                process.join()
        return all(process.exitcode in ENDED_WELL for process in alive)


class _Slot:
    """The place of one worker, whoever fills it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: SpawnProcess | None = None
        self.start_at_s = 0.0
        self._started_s = 0.0
        self._pause_s = 0.0

    def start(self, target: Target, sock: socket.socket) -> None:
        self._started_s = time.monotonic()
        self.process = multiprocessing.get_context("spawn").Process(
            target=target, args=(sock, self.number), name=f"worker {self.number}"
        )
        self.process.start()
        logs.event(logging.INFO, "worker is started", worker=self.number, pid=self.process.pid)

    def ended(self) -> None:
        assert self.process is not None
        logs.event(logging.ERROR, "worker died", worker=self.number, pid=self.process.pid, code=self.process.exitcode)
        self.process.close()
        self.process = None
        short_life = time.monotonic() - self._started_s < STABLE_S
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s or 0.5) if short_life else 0.0
        self.start_at_s = time.monotonic() + self._pause_s
