"""Reads the resources of a process from the kernel: memory, peak, CPU time, descriptors, threads. Linux only."""

import contextlib
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.processes import process_tree


class ResourceUsage(NamedTuple):
    """Resident bytes, open descriptors and threads of a process."""

    resident_bytes: int
    descriptors: int
    threads: int


def workers_of(pid: int) -> list[int]:
    """Returns the serving processes of `convoy serve`: its workers, or the process itself without workers."""
    return [child for child in process_tree(pid)[1:] if _is_worker(child)] or [pid]


def resource_usage(pid: int) -> ResourceUsage:
    """Returns the resources of a process. Raises OSError if it has ended."""
    process = Path("/proc", str(pid))
    pages = int((process / "statm").read_text().split()[1])
    threads = len(os.listdir(process / "task"))
    return ResourceUsage(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(process / "fd")), threads)


def worker_usage(pid: int) -> dict[int, ResourceUsage]:
    """Returns the resources of every running worker by process number."""
    usage = {}
    for worker in workers_of(pid):
        with contextlib.suppress(OSError):
            usage[worker] = resource_usage(worker)
    return usage


def _is_worker(pid: int) -> bool:
    """Returns whether a process is a worker instead of multiprocessing's resource tracker."""
    try:
        return b"spawn_main" in Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return False


RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs
PROCESS_CLOCK = 2  # clock_getcpuclockid(3) on Linux: the inverted process number and the kind of clock


class ResourceMeter:
    """Peak memory and processor time of a process since `start`."""

    def __init__(self, pid: int) -> None:
        self._status = Path("/proc", str(pid), "status")
        self._clear = Path("/proc", str(pid), "clear_refs")
        self._clock = (~pid << 3) | PROCESS_CLOCK
        self._before_bytes = self._before_s = 0.0

    def start(self) -> None:
        self._clear.write_text(RESET_PEAK)
        self._before_bytes = self.resident_bytes()
        self._before_s = time.clock_gettime(self._clock)

    def extra_bytes(self) -> float:
        """Returns the peak memory since `start`, minus the resident memory at `start`."""
        return self._read("VmHWM") - self._before_bytes

    def cpu_s(self) -> float:
        return time.clock_gettime(self._clock) - self._before_s

    def resident_bytes(self) -> float:
        return self._read("VmRSS")

    def _read(self, name: str) -> float:
        usage = re.search(rf"^{name}:\s*(\d+) kB", self._status.read_text(), re.MULTILINE)
        assert usage is not None
        return int(usage[1]) * 1024
