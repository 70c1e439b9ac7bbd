"""Reads the properties of the first GPU with nvidia-smi."""

import shutil
import subprocess

MIB = 2**20
TIMEOUT_S = 20


def query(field: str) -> str:
    """Returns a field of nvidia-smi's --query-gpu, or "none" if there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return "none"
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    return process.stdout.strip().partition("\n")[0].strip() or "none"


def used_bytes() -> int:
    """Returns the GPU memory that is in use by any process. Raises ValueError if there is no driver."""
    return int(query("memory.used")) * MIB
