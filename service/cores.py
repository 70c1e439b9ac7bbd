"""How many processor cores this process may use, as its container and affinity say."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """The smaller of the affinity mask and the cgroup's quota, rounded down, at least 1.

    onnxruntime sizes its pool from the host instead, and is then throttled (onnxruntime#29510).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _quota_v2(cgroup: Path) -> float | None:
    """Cores that `cpu.max` ("150000 100000", or "max 100000") grants, None where it sets no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(cgroup: Path) -> float | None:
    """The same of cgroup v1, where a quota of -1 is no limit."""
    try:
        quota, period = (int((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
