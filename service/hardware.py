"""Reads usable processor cores, memory, instruction sets and GPUs from files of the system.

Other modules decide which engine and precision to use.
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
    """Returns the processor's instruction sets by their names in Linux; empty if they are unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    names = (line.partition(":") for line in lines)
    return next(
        (frozenset(flags.split()) for key, _, flags in names if key.strip() in ("flags", "Features")), frozenset()
    )


def has_nvidia_gpu(devices: Path = DEVICES, environ: Mapping[str, str] = os.environ) -> bool:
    """Returns whether this process can use an NVIDIA GPU. Containers see only their own GPUs, and WSL has one device
    for all GPUs."""
    if environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()


def processor_name(cpuinfo: Path = CPUINFO) -> str:
    """Returns the model name of the processor, or "unknown"."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Returns the smaller of the affinity mask and the cgroup's quota, rounded down, at least 1.

    By default, onnxruntime starts a thread per core of the host, and is then throttled (onnxruntime#29510).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return max(1, cores if quota is None else min(cores, int(quota)))


def memory_limit_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Returns the memory that this process may use: the smaller of the machine's memory and the container's limit."""
    physical = _meminfo_bytes(meminfo, "MemTotal")
    return min(physical, _first_int(cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes") or physical)


def free_memory_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Returns the memory that is free without swapping: the smaller of the machine's and the container's."""
    free = _meminfo_bytes(meminfo, "MemAvailable")
    limit = _first_int(cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes")
    used = _first_int(cgroup / "memory.current", cgroup / "memory/memory.usage_in_bytes")
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _meminfo_bytes(meminfo: Path, key: str) -> int:
    """Returns a value of meminfo in bytes, or FALLBACK_MEMORY_BYTES if the system does not report it."""
    try:
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines[key].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return FALLBACK_MEMORY_BYTES


def _first_int(*files: Path) -> int | None:
    """Returns the number in the first file that contains a number; None if no file does ("max" means no limit)."""
    for file in files:
        with suppress(OSError, ValueError):
            return int(file.read_text())
    return None


def _quota_v2(cgroup: Path) -> float | None:
    """Returns the cores that `cpu.max` allows ("150000 100000", or "max 100000"); None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(cgroup: Path) -> float | None:
    """Returns the cores that cgroup v1 allows; None without a limit, which is a quota of -1."""
    try:
        quota, period = (int((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
