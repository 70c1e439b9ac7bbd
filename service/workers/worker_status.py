"""Status and counters that workers exchange through small files in one folder.

A worker writes only its own files, atomically. The counters of a worker that died stay in the totals.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from service.atomic_files import atomic_write, file_fingerprint
from service.observability import logs
from service.observability.multiprocess import Families, StatsByVersion, add_families, add_stats, without_gauges
from service.observability.version_stats import VersionStats

MAX_SILENCE_S = 5.0
MAX_ABSORBED_FILES = 16
LOST_PREFIX = "lost-"
REFRESH_REQUEST_FILE = "refresh-request"
SUPERVISOR_FILE = "supervisor.json"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Status of one worker: the generation of the desired state that it has applied (-1 before the first), the reasons
    why it is not ready, and failures by model. `answered_request` is the refresh request to which it has published its
    totals. `stuck_models` holds reasons to replace the worker."""

    worker_id: int
    pid: int
    generation: int
    reasons: dict[str, str]
    written_s: float
    failures: dict[str, str] = field(default_factory=dict)
    answered_request: int = 0
    stuck_models: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """Unix time at which the service started, the number of workers started in place of another worker, the number of
    workers whose event loop is blocked now, and whether a stop was requested."""

    started_at_s: float
    restarts: int = 0
    unresponsive: int = 0
    is_stopping: bool = False


@dataclass(slots=True)
class WorkerTotals:
    """Counters of a worker since it started. `absorbed_files` names files of dead workers that are already included."""

    families: Families = field(default_factory=dict)
    stats: StatsByVersion = field(default_factory=dict)
    absorbed_files: list[str] = field(default_factory=list)

    def plus(self, other: "WorkerTotals") -> "WorkerTotals":
        return WorkerTotals(
            add_families(self.families, other.families), add_stats(self.stats, other.stats), self.absorbed_files
        )


class WorkerStatusStore:
    """The shared files in `folder`, used by the worker `worker_id` of `workers`. A single worker writes no files."""

    def __init__(self, folder: Path, worker_id: int = 0, workers: int = 1) -> None:
        self.folder = folder
        self.worker_id = worker_id
        self.workers = workers
        self._is_failing = False
        self._own_status: WorkerStatus | None = None
        self._created_at_s = time.time()

    def publish_status(
        self,
        generation: int,
        reasons: dict[str, str],
        failures: dict[str, str] | None = None,
        answered_request: int = 0,
        stuck_models: dict[str, str] | None = None,
    ) -> None:
        """Publishes the current status of this worker."""
        self._own_status = WorkerStatus(
            self.worker_id,
            os.getpid(),
            generation,
            reasons,
            time.monotonic(),
            failures or {},
            answered_request,
            stuck_models or {},
        )
        if self.workers > 1:
            self._write(f"worker-{self.worker_id}.json", self._own_status)

    def request_refresh(self) -> int:
        """Requests fresh totals of every worker. Returns the request, to be compared with `answered_request`."""
        request = time.monotonic_ns()
        self._attempt(lambda: self._write_request(request))
        return request

    def refresh_request(self) -> int:
        """Returns the last refresh request; 0 before the first, and with a single worker. Costs one stat."""
        request = file_fingerprint(self.folder / REFRESH_REQUEST_FILE) if self.workers > 1 else None
        return 0 if request is None else request.modified_ns

    def statuses(self) -> list[WorkerStatus | None]:
        """Returns the last status of every worker, by id; None for a worker that is dead or silent, or has no status
        yet."""
        if self.workers == 1:
            return [self._own_status]
        return [self._status(worker_id) for worker_id in range(self.workers)]

    def has_loaded_models(self, worker_id: int, pid: int) -> bool:
        """Whether the process, which may have died, had loaded its models when it last published its status."""
        status = self._read_status(worker_id)
        return status is not None and status.pid == pid and status.generation >= 0

    def mark_lost(self, worker_id: int, reason: str) -> None:
        """Marks a worker that cannot start, so that the service does not wait for it. Only for the supervisor."""
        self._attempt(lambda: atomic_write(self.folder / f"{LOST_PREFIX}{worker_id}", reason.encode()))

    def clear_lost(self, worker_id: int) -> None:
        """Removes the mark of a worker that has started again."""
        (self.folder / f"{LOST_PREFIX}{worker_id}").unlink(missing_ok=True)

    def lost_workers(self) -> dict[int, str]:
        """Returns the reason for each worker that cannot start while others can, by id."""
        files = self.folder.glob(f"{LOST_PREFIX}*") if self.workers > 1 else ()
        return {int(file.name.removeprefix(LOST_PREFIX)): file.read_text() for file in files}

    def publish_supervisor(self, status: SupervisorStatus) -> bool:
        """Publishes the status of the supervisor. Returns whether the file could be written."""
        return self._write(SUPERVISOR_FILE, status)

    def supervisor(self) -> SupervisorStatus:
        """Returns the last status of the supervisor. A single worker has no supervisor, and is never replaced."""
        try:
            return SupervisorStatus(**orjson.loads((self.folder / SUPERVISOR_FILE).read_bytes()))
        except FileNotFoundError:
            return SupervisorStatus(self._created_at_s)

    def publish_totals(self, totals: WorkerTotals) -> None:
        """Publishes the totals of this worker to the others."""
        if self.workers > 1:
            self._write(_totals_file(self.worker_id, os.getpid()), totals)

    def totals_of_others(self) -> WorkerTotals:
        """Returns the totals of all other workers, including dead ones. Gauges are included only for live workers."""
        own_file = _totals_file(self.worker_id, os.getpid())
        live_files = {_totals_file(n.worker_id, n.pid) for n in self.statuses() if n is not None}
        totals_by_file = {
            path.name: totals
            for path in self.folder.glob("totals-*.json")
            if (totals := _read_totals(path)) is not None
        }
        # Read after the other files, so that a file that was removed in the meantime is already included here.
        total = _read_totals(self.folder / "absorbed.json") or WorkerTotals()
        for name, totals in totals_by_file.items():
            if name != own_file and name not in total.absorbed_files:
                total = total.plus(totals if name in live_files else _without_gauges(totals))
        return total

    def absorb_dead_worker(self, worker_id: int, pid: int) -> None:
        """Adds the totals of a dead worker to the totals of all dead workers. Only for the supervisor."""
        path = self.folder / _totals_file(worker_id, pid)
        totals = _read_totals(path)
        if totals is not None:
            dead_totals = _read_totals(self.folder / "absorbed.json") or WorkerTotals()
            total = dead_totals.plus(_without_gauges(totals))
            total.absorbed_files = [*dead_totals.absorbed_files, path.name][-MAX_ABSORBED_FILES:]
            if self._write("absorbed.json", total):
                path.unlink()

    def _write_request(self, request: int) -> None:
        """Writes the request as the file's modification time, because the file system's own clock advances in steps of
        milliseconds. Several workers may write at the same time, each through its own temporary file."""
        temporary = self.folder / f".refresh-request-{self.worker_id}.part"
        temporary.touch()
        os.utime(temporary, ns=(request, request))
        temporary.replace(self.folder / REFRESH_REQUEST_FILE)

    def _status(self, worker_id: int) -> WorkerStatus | None:
        status = self._read_status(worker_id)
        is_fresh = status is not None and time.monotonic() - status.written_s < MAX_SILENCE_S and _is_alive(status.pid)
        return status if is_fresh else None

    def _read_status(self, worker_id: int) -> WorkerStatus | None:
        try:
            return WorkerStatus(**orjson.loads((self.folder / f"worker-{worker_id}.json").read_bytes()))
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: Any) -> bool:
        """Writes a file. Returns whether it was written; otherwise its old content is kept."""
        encoded = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
        return self._attempt(lambda: atomic_write(self.folder / name, encoded))

    def _attempt(self, change: Callable[[], None]) -> bool:
        """Calls `change`, and returns whether it succeeded. An error is logged once, because a full disk must not stop
        a worker."""
        try:
            change()
        except OSError as error:
            if not self._is_failing:
                logs.event(logging.ERROR, "worker status cannot be written", reason=str(error))
            self._is_failing = True
            return False
        if self._is_failing:
            logs.event(logging.INFO, "worker status is written again")
        self._is_failing = False
        return True


def _totals_file(worker_id: int, pid: int) -> str:
    return f"totals-{worker_id}-{pid}.json"


def _without_gauges(totals: WorkerTotals) -> WorkerTotals:
    return WorkerTotals(without_gauges(totals.families), totals.stats)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _read_totals(path: Path) -> WorkerTotals | None:
    try:
        values = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    stats = {key: VersionStats.from_json(value) for key, value in values["stats"].items()}
    return WorkerTotals(values["families"], stats, values["absorbed_files"])
