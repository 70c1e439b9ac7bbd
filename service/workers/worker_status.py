"""What the workers tell each other, through small files in one folder: how each is, and what each has counted.

A worker writes only its own files, whole or not at all. What a dead one had counted stays in the sums.
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

SILENT_S = 5.0
BURIED_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How one worker is: what of the state file it has carried out, why it is not ready, and what is wrong by model."""

    slot: int
    pid: int
    generation: int
    reasons: dict[str, str]
    written_s: float
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class WorkerTotals:
    """What a worker has counted since it started. `buried` names the files of the dead that are in here already."""

    families: Families = field(default_factory=dict)
    counted: StatsByVersion = field(default_factory=dict)
    buried: list[str] = field(default_factory=list)

    def plus(self, other: "WorkerTotals") -> "WorkerTotals":
        return WorkerTotals(
            add_families(self.families, other.families), add_stats(self.counted, other.counted), self.buried
        )


class WorkerStatusStore:
    """The notice board in `folder` as the worker in `slot` of `workers` sees it."""

    def __init__(self, folder: Path, slot: int = 0, workers: int = 1) -> None:
        self._folder = folder
        self._slot = slot
        self.workers = workers
        self._fails = False

    def post(self, generation: int, reasons: dict[str, str], failures: dict[str, str] | None = None) -> None:
        """Tells how this worker is, as of now."""
        notice = WorkerStatus(self._slot, os.getpid(), generation, reasons, time.monotonic(), failures or {})
        self._write(f"worker-{self._slot}.json", notice)

    def ask(self) -> float:
        """Asks every worker for a fresh notice and sums; returns the moment, to compare `written_s` with."""
        now_s = time.monotonic()
        self._try(lambda: (self._folder / "ask").touch())
        return now_s

    def asked(self) -> int:
        """Differs after every `ask`; cheap."""
        request = file_fingerprint(self._folder / "ask")
        return 0 if request is None else request.modified_ns

    def notices(self) -> list[WorkerStatus | None]:
        """Every worker's last notice, by slot; None for one that never wrote, is dead, or has been silent."""
        return [self._notice(slot) for slot in range(self.workers)]

    def post_sums(self, sums: WorkerTotals) -> None:
        """Tells what this worker has counted; with nobody else to add it up, nothing is written."""
        if self.workers > 1:
            self._write(_sums_file(self._slot, os.getpid()), sums)

    def sums_of_others(self) -> WorkerTotals:
        """What all other workers have counted, the dead included; gauges of the living only."""
        own = _sums_file(self._slot, os.getpid())
        living = {_sums_file(n.slot, n.pid) for n in self.notices() if n is not None}
        found = {path.name: sums for path in self._folder.glob("sums-*.json") if (sums := _read_sums(path)) is not None}
        total = _read_sums(self._folder / "buried.json") or WorkerTotals()  # after the others: what vanishes is in here
        for name, sums in found.items():
            if name != own and name not in total.buried:
                total = total.plus(sums if name in living else _left_behind(sums))
        return total

    def absorb_dead_worker(self, slot: int, pid: int) -> None:
        """Moves what a dead worker had counted to the sums of all the dead. Only the supervisor does this."""
        path = self._folder / _sums_file(slot, pid)
        sums = _read_sums(path)
        if sums is not None:
            all_dead = _read_sums(self._folder / "buried.json") or WorkerTotals()
            total = all_dead.plus(_left_behind(sums))
            total.buried = [*all_dead.buried, path.name][-BURIED_REMEMBERED:]
            if self._write("buried.json", total):
                path.unlink()

    def _notice(self, slot: int) -> WorkerStatus | None:
        try:
            notice = WorkerStatus(**orjson.loads((self._folder / f"worker-{slot}.json").read_bytes()))
        except FileNotFoundError:
            return None
        return notice if time.monotonic() - notice.written_s < SILENT_S and _alive(notice.pid) else None

    def _write(self, name: str, content: Any) -> bool:
        """Whether it was written; otherwise what stood there stays."""
        encoded = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
        return self._try(lambda: atomic_write(self._folder / name, encoded))

    def _try(self, change: Callable[[], None]) -> bool:
        """Whether the folder took the change. A full disk must stop nobody's work: it is told, once, and passes."""
        try:
            change()
        except OSError as error:
            if not self._fails:
                logs.event(logging.ERROR, "workers cannot tell each other anything", reason=str(error))
            self._fails = True
            return False
        if self._fails:
            logs.event(logging.INFO, "workers can tell each other again")
        self._fails = False
        return True


def _sums_file(slot: int, pid: int) -> str:
    return f"sums-{slot}-{pid}.json"


def _left_behind(sums: WorkerTotals) -> WorkerTotals:
    return WorkerTotals(without_gauges(sums.families), sums.counted)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _read_sums(path: Path) -> WorkerTotals | None:
    try:
        given = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    counted = {key: VersionStats.from_json(value) for key, value in given["counted"].items()}
    return WorkerTotals(given["families"], counted, given["buried"])
