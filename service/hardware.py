"""Usable processor cores, memory, instruction sets and GPUs, read from files of the system.

Reports what there is; which engine or precision to use is decided elsewhere.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
DEVICES = Path("/dev")
CGROUP = Path("/sys/fs/cgroup")
FALLBACK_MEMORY_BYTES = 4 << 30


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Names of the processor's instruction sets, as Linux calls them; none where they cannot be told."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    names = (line.partition(":") for line in lines)
    return next(
        (frozenset(flags.split()) for key, _, flags in names if key.strip() in ("flags", "Features")), frozenset()
    )


def has_nvidia_gpu(devices: Path = DEVICES, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is given an NVIDIA GPU: containers see only their own, and WSL shows all as one."""
    if environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()


def processor_name(cpuinfo: Path = CPUINFO) -> str:
    """Returns the model name of the processor, "unknown" where the system does not report it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """The smaller of the affinity mask and the cgroup's quota, rounded down, at least 1.

    onnxruntime sizes its pool from the host instead, and is then throttled (onnxruntime#29510).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return max(1, cores if quota is None else min(cores, int(quota)))


def memory_limit_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Returns the memory that this process may use: the smaller of the machine's and the container's limit."""
    physical = _meminfo_bytes(meminfo, "MemTotal")
    return min(physical, _first_int(cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes") or physical)


def free_memory_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Returns the memory that is free without swapping: the smaller of the machine's and the container's."""
    free = _meminfo_bytes(meminfo, "MemAvailable")
    limit = _first_int(cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes")
    used = _first_int(cgroup / "memory.current", cgroup / "memory/memory.usage_in_bytes")
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _meminfo_bytes(meminfo: Path, key: str) -> int:
    """FALLBACK_MEMORY_BYTES where the system does not report it."""
    try:
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines[key].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return FALLBACK_MEMORY_BYTES


def _first_int(*files: Path) -> int | None:
    """The number in the first of the files that holds one, cgroup v2's before v1's; None for none ("max": no limit)."""
    for file in files:
        with suppress(OSError, ValueError):
            return int(file.read_text())
    return None


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
