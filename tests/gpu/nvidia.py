"""Queries the GPU's driver, and finds the CUDA libraries that pip has installed. Measures nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

MIB = 2**20
TIMEOUT_S = 20


def name_and_driver() -> tuple[str, str]:
    """Returns name and driver version; both are "none" without a driver."""
    output = _query("name,driver_version")
    name, _, driver = output.partition(",")
    return name.strip() or "none", driver.strip() or "none"


def used_bytes() -> int:
    """Returns the used memory of the first GPU, over all processes. Raises RuntimeError without a driver."""
    output = _query("memory.used")
    if not output.isdigit():
        raise RuntimeError("nvidia-smi does not report the used memory")
    return int(output) * MIB


def libraries() -> list[Path]:
    """Returns the folders of NVIDIA's packages on Python's path. onnxruntime searches only beside its own package."""
    folders = [path for entry in sys.path if entry for path in sorted(Path(entry).glob("nvidia/*/lib"))]
    return [path.resolve() for path in folders]


def environment() -> dict[str, str]:
    """Returns the caller's environment with a library path for child processes."""
    paths = [*map(str, libraries()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return dict(os.environ) | ({"LD_LIBRARY_PATH": ":".join(paths)} if paths else {})


def _query(field: str) -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    return process.stdout.strip().partition("\n")[0].strip()
