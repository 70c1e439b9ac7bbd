"""What the workers of a service hold, as the kernel tells it. Linux only."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from tests.bench.processes import family


class Holding(NamedTuple):
    """One process: resident bytes, open descriptors, threads."""

    resident_bytes: int
    descriptors: int
    threads: int


def workers_of(pid: int) -> list[int]:
    """The serving processes of `convoy serve`: its workers, or itself where it has none."""
    return [child for child in family(pid)[1:] if _is_worker(child)] or [pid]


def holding(pid: int) -> Holding:
    """Raises OSError for a process that has ended."""
    process = Path("/proc", str(pid))
    pages = int((process / "statm").read_text().split()[1])
    threads = len(os.listdir(process / "task"))
    return Holding(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(process / "fd")), threads)


def holdings(pid: int) -> dict[int, Holding]:
    """Of every worker that lives, by process number."""
    found = {}
    for worker in workers_of(pid):
        with contextlib.suppress(OSError):
            found[worker] = holding(worker)
    return found


def _is_worker(pid: int) -> bool:
    """multiprocessing also starts a process that only keeps track of resources."""
    try:
        return b"spawn_main" in Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return False
