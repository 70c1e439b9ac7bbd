"""What one process spends on one request, as the kernel counts it. Linux only."""

import re
import time
from pathlib import Path

RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs
PROCESS_CLOCK = 2  # clock_getcpuclockid(3) as Linux makes it: the inverted number of the process, and the kind


class Meter:
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
        """The highest peak since `start`, above what was resident then."""
        return self._read("VmHWM") - self._before_bytes

    def cpu_s(self) -> float:
        return time.clock_gettime(self._clock) - self._before_s

    def resident_bytes(self) -> float:
        return self._read("VmRSS")

    def _read(self, name: str) -> float:
        found = re.search(rf"^{name}:\s*(\d+) kB", self._status.read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024
