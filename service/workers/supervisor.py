"""Runs several workers on one socket: starts them, restarts workers that died or hang, and stops all workers on
SIGTERM.

Exits when a worker cannot be started, as decided by `restart_policy`. With several GPUs, exits when each GPU has a
worker that cannot be started, and until then keeps restarting the workers of a failed GPU.
"""

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from service.exit_codes import EXIT_RETRY
from service.observability import logs
from service.workers.drop_new_connections import drop_new_connections
from service.workers.exit_reasons import HUNG_EXIT, describe_exit
from service.workers.heartbeat import SilenceMeter, heartbeat_file, last_heartbeat_ns
from service.workers.restart_policy import MAX_EARLY_DEATHS, RestartPolicy
from service.workers.shutdown import EXIT_REQUESTS_LOST
from service.workers.worker_status import MAX_SILENCE_S, SupervisorStatus, WorkerStatus, WorkerStatusStore

EXIT_CANNOT_START = EXIT_RETRY
"""Exit code of a service whose workers cannot start."""
KILL_GRACE_S = 5.0  # after the drain timeout
HANG_POLL_S = 1.0
MAX_WAKE_BYTES = 4096
CLEAN_EXIT_CODES = (0, -signal.SIGTERM)  # a worker that has not begun to serve ends with -SIGTERM

WorkerTarget = Callable[[socket.socket, int], None]


class Supervisor:
    """Runs `target(socket, worker_id)` in each of `workers` processes. SIGINT is blocked in these processes until the
    target unblocks it."""

    def __init__(
        self,
        target: WorkerTarget,
        sock: socket.socket,
        status_store: WorkerStatusStore,
        workers: int,
        drain_timeout_s: float,
        gpus: Sequence[int] = (),
        worker_timeout_s: float = 0.0,
        stop_delay_s: float = 0.0,
    ) -> None:
        """Workers are assigned to the GPU indices `gpus` in turn. A worker whose event loop blocks for
        `worker_timeout_s` is replaced (0: never). After SIGTERM, workers continue to serve for `stop_delay_s`."""
        self._target = target
        self._sock = sock
        self._status_store = status_store
        self._drain_timeout_s = drain_timeout_s
        self._worker_timeout_s = worker_timeout_s
        self._stop_delay_s = stop_delay_s
        self._workers = [
            _WorkerProcess(worker_id, gpus[worker_id % len(gpus)] if gpus else None) for worker_id in range(workers)
        ]
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._is_stopping = False
        self._status = SupervisorStatus(time.time())
        status_store.publish_supervisor(self._status)

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT has ended all workers, or until a worker cannot be started.

        Returns the exit code: 0, EXIT_REQUESTS_LOST or EXIT_CANNOT_START.
        """
        # Python runs a handler before or after a system call. A signal just before a wait would therefore take effect
        # only when the wait ends; the byte that Python writes at once ends it.
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, self._on_signal)
        while not self._is_stopping:
            self._start_missing_workers()
            self._wait_for_event()
            if self._reap_dead_workers():
                self._stop_workers()
                return EXIT_CANNOT_START
            self._stop_hung_workers()
        self._serve_on()
        return self._stop_workers()

    def _on_signal(self, signal_number: int, frame: FrameType | None) -> None:
        """Stops the service on the first signal; SIGTERM stops it after the delay. A later signal ends the delay, and a
        later SIGINT makes the workers give up the remaining requests."""
        if self._is_stopping or signal_number == signal.SIGINT:
            self._stop_delay_s = 0.0
        if self._is_stopping and signal_number == signal.SIGINT:
            for worker in self._workers:
                if worker.process is not None and worker.process.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.process.pid, signal.SIGINT)
        self._is_stopping = True

    def _serve_on(self) -> None:
        """Waits for the end of the delay, while readiness fails."""
        self._publish(replace(self._status, is_stopping=True))
        end_s = time.monotonic() + self._stop_delay_s
        while self._stop_delay_s and (remaining_s := end_s - time.monotonic()) > 0:
            self._wait([], remaining_s)

    def _start_missing_workers(self) -> None:
        for worker in self._workers:
            if worker.process is None and time.monotonic() >= worker.restarts.next_start_s:
                if worker.last_death:
                    self._publish(replace(self._status, restarts=self._status.restarts + 1))
                try:
                    worker.start(self._target, self._sock)
                except OSError as error:  # too many processes or too little memory; the other workers continue
                    worker.handle_failed_start(error)

    def _wait_for_event(self) -> None:
        """Waits until a worker ends, a restart is due, a signal arrives, or the next check for hangs is due."""
        now_s = time.monotonic()
        starts_s = [worker.restarts.next_start_s for worker in self._workers if worker.process is None]
        timeout_s = max(0.0, min([now_s + HANG_POLL_S, *starts_s]) - now_s)
        sentinels = [worker.process.sentinel for worker in self._workers if worker.process is not None]
        self._wait(sentinels, timeout_s)

    def _wait(self, sentinels: Sequence[int], timeout_s: float) -> None:
        """Waits until a process ends or a signal arrives, at most `timeout_s`."""
        if self._wake_reader in multiprocessing.connection.wait([*sentinels, self._wake_reader], timeout_s):
            os.read(self._wake_reader, MAX_WAKE_BYTES)

    def _reap_dead_workers(self) -> bool:
        """Schedules the restarts of workers that died. Returns whether the service must end, because too few workers
        can start."""
        for worker in self._workers:
            if worker.process is not None and not worker.process.is_alive():
                pid = worker.process.pid or 0
                has_loaded_models = self._status_store.has_loaded_models(worker.worker_id, pid)
                self._status_store.absorb_dead_worker(worker.worker_id, pid)
                heartbeat_file(self._status_store.folder, worker.worker_id, pid).unlink(missing_ok=True)
                worker.handle_exit(has_loaded_models)
        exhausted = [worker for worker in self._workers if worker.restarts.is_exhausted()]
        if exhausted and {worker.gpu for worker in exhausted} == {worker.gpu for worker in self._workers}:
            logs.event(logging.CRITICAL, "worker cannot start; the service ends", **exhausted[-1].last_death)
            return True
        for worker in exhausted:
            if worker.restarts.early_deaths == MAX_EARLY_DEATHS and worker.process is None:
                logs.event(logging.ERROR, "worker cannot start; the service continues without it", **worker.last_death)
                self._status_store.mark_lost(worker.worker_id, f"GPU {worker.gpu}: {worker.last_death['reason']}")
        return False

    def _stop_hung_workers(self) -> None:
        for worker, status in zip(self._workers, self._status_store.statuses(), strict=True):
            worker.stop_if_hung(status, time.monotonic(), self._drain_timeout_s + KILL_GRACE_S)
            if worker.restarts.is_exhausted() and worker.has_loaded_models(status):
                self._status_store.clear_lost(worker.worker_id)
            worker.stop_if_silent(self._status_store.folder, time.monotonic(), self._worker_timeout_s)
        unresponsive = sum(worker.is_unresponsive for worker in self._workers)
        if unresponsive != self._status.unresponsive:
            self._publish(replace(self._status, unresponsive=unresponsive))

    def _publish(self, status: SupervisorStatus) -> None:
        self._status = status
        self._status_store.publish_supervisor(status)

    def _stop_workers(self) -> int:
        drop_new_connections(self._sock)
        self._sock.close()  # when the workers have closed their copies too, no client can connect
        alive = [worker.process for worker in self._workers if worker.process is not None]
        for process in alive:
            process.terminate()
        end_s = time.monotonic() + self._drain_timeout_s + KILL_GRACE_S
        for process in alive:
            while process.is_alive() and (remaining_s := end_s - time.monotonic()) > 0:
                self._wait([process.sentinel], remaining_s)
            if process.is_alive():
                logs.event(logging.ERROR, "worker is killed", pid=process.pid)
                process.kill()
                process.join()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # SIGINT while Python exits would replace the exit code
        signal.set_wakeup_fd(-1)
        return 0 if all(process.exitcode in CLEAN_EXIT_CODES for process in alive) else EXIT_REQUESTS_LOST


class _WorkerProcess:
    """One worker: its current process, and when to start the next one."""

    def __init__(self, worker_id: int, gpu: int | None = None) -> None:
        self.worker_id = worker_id
        self.gpu = gpu
        self.last_death: dict[str, Any] = {}
        self.process: SpawnProcess | None = None
        self.restarts = RestartPolicy()
        self.is_unresponsive = False
        """Whether its event loop has been blocked for MAX_SILENCE_S."""
        self._silence = SilenceMeter()
        self._is_hung = False
        self._hung_at_s: float | None = None
        self._kill_at_s: float | None = None

    def start(self, target: WorkerTarget, sock: socket.socket) -> None:
        self.restarts.record_start(time.monotonic())
        self._hung_at_s = self._kill_at_s = None
        self._silence, self.is_unresponsive, self._is_hung = SilenceMeter(), False, False
        process = multiprocessing.get_context("spawn").Process(
            target=target, args=(sock, self.worker_id), name=f"worker {self.worker_id}"
        )
        # Ctrl-C also reaches the workers. A worker that does not handle it yet would print a traceback.
        resource_tracker.ensure_running()  # started first, because its start unblocks the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.process = process
        logs.event(logging.INFO, "worker is started", worker=self.worker_id, pid=self.process.pid, **self._gpu_field)

    @property
    def _gpu_field(self) -> dict[str, int]:
        return {} if self.gpu is None else {"gpu": self.gpu}

    def has_loaded_models(self, status: WorkerStatus | None) -> bool:
        """Whether the current process has reported in its status that its models are loaded."""
        pid = self.process and self.process.pid
        return status is not None and status.pid == pid and status.generation >= 0

    def stop_if_hung(self, status: WorkerStatus | None, now_s: float, grace_s: float) -> None:
        """Stops the process if two consecutive statuses report a stuck model.

        Sends SIGTERM, so that requests to other models are answered, and SIGKILL after `grace_s`. A single status is
        not enough, because it may be the first status after the machine was suspended.
        """
        if self.process is None:
            return
        if self._kill_at_s is not None:
            if now_s >= self._kill_at_s:
                self.process.kill()
            return
        if status is None or status.pid != self.process.pid or not status.stuck_models:
            self._hung_at_s = None
        elif self._hung_at_s is None:
            self._hung_at_s = status.written_s
        elif status.written_s > self._hung_at_s:
            self._log_hang(" ".join(f"{model}: {reason}" for model, reason in status.stuck_models.items()))
            self.process.terminate()
            self._kill_at_s = now_s + grace_s

    def stop_if_silent(self, folder: Path, now_s: float, timeout_s: float) -> None:
        """Kills the process if its event loop has been blocked for `timeout_s`, because it then answers no request and
        does not handle SIGTERM. Before that, logs when the process stops responding, and when it responds again."""
        if self.process is None or (pid := self.process.pid) is None:
            return
        silent_s = self._silence.poll(last_heartbeat_ns(folder, self.worker_id, pid), now_s)
        if (silent_s >= MAX_SILENCE_S) != self.is_unresponsive:
            self.is_unresponsive = not self.is_unresponsive
            level = logging.ERROR if self.is_unresponsive else logging.INFO
            event = "worker does not respond" if self.is_unresponsive else "worker responds again"
            logs.event(level, event, worker=self.worker_id, pid=pid)
        if timeout_s and silent_s >= timeout_s and not self._is_hung:
            self._log_hang(f"Its event loop has been blocked for {timeout_s:g} s.")
            self.process.kill()

    def _log_hang(self, reason: str) -> None:
        assert self.process is not None
        self._is_hung = True
        logs.event(logging.ERROR, "worker hangs", worker=self.worker_id, pid=self.process.pid, reason=reason)

    def handle_failed_start(self, error: OSError) -> None:
        """Logs that the system did not start the process, counts it as an early death, and schedules a new attempt."""
        reason = f"The system did not start its process: {error.strerror or error}."
        action = "Raise the limits of processes and memory, or lower CONVOY_WORKERS."
        self._schedule_restart({"reason": reason, "action": action}, has_loaded_models=False)

    def handle_exit(self, has_loaded_models: bool) -> None:
        """Logs the death and schedules the restart."""
        assert self.process is not None
        code, pid = self.process.exitcode or 0, self.process.pid
        self.process.close()
        self.process, self.is_unresponsive = None, False
        reason, action = HUNG_EXIT if self._is_hung else describe_exit(code)
        death = {"pid": pid, "code": code, "reason": reason, "action": action}
        self._schedule_restart(death, has_loaded_models=has_loaded_models)

    def _schedule_restart(self, death: dict[str, Any], *, has_loaded_models: bool) -> None:
        self.restarts.record_death(time.monotonic(), has_loaded_models=has_loaded_models)
        self.last_death = {"worker": self.worker_id, **death, **self._gpu_field}
        logs.event(logging.ERROR, "worker died", **self.last_death, early_deaths=self.restarts.early_deaths)
