"""The first GPU as nvidia-smi reports it."""

import shutil
import subprocess

MIB = 2**20
TIMEOUT_S = 20


def query(field: str) -> str:
    """A field of nvidia-smi's --query-gpu, "none" without a driver."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    return process.stdout.strip().partition("\n")[0].strip() or "none"


def used_bytes() -> int:
    """Memory of the GPU that is in use, by any process. Raises ValueError without a driver."""
    return int(query("memory.used")) * MIB
