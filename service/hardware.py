"""What processor and GPUs this machine shows, from files of the system. Decides nothing."""

import os
from collections.abc import Mapping
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
DEVICES = Path("/dev")


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
