"""The GPU as its driver tells of it, and the CUDA libraries that pip has installed. Measures nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

MIB = 2**20
TIMEOUT_S = 20


def name_and_driver() -> tuple[str, str]:
    """Both "none" where there is no driver."""
    output = _query("name,driver_version")
    name, _, driver = output.partition(",")
    return name.strip() or "none", driver.strip() or "none"


def used_bytes() -> int:
    """Memory of the first GPU that is in use, by whomever. Raises RuntimeError without a driver."""
    output = _query("memory.used")
    if not output.isdigit():
        raise RuntimeError("nvidia-smi does not tell how much memory is used")
    return int(output) * MIB


def libraries() -> list[Path]:
    """Folders of NVIDIA's packages in any folder that Python imports from: onnxruntime looks beside itself only."""
    folders = [path for entry in sys.path if entry for path in sorted(Path(entry).glob("nvidia/*/lib"))]
    return [path.resolve() for path in folders]


def environment() -> dict[str, str]:
    """The caller's, with which a child process finds these libraries."""
    paths = [*map(str, libraries()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return dict(os.environ) | ({"LD_LIBRARY_PATH": ":".join(paths)} if paths else {})


def _query(field: str) -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    return process.stdout.strip().partition("\n")[0].strip()
