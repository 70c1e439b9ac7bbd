"""Describes the machine, the software and the date of a measurement."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

from service.hardware import cpu_flags, processor_name, usable_cores
from tests.bench.convoy_process import PYTHON, ROOT

LIBRARIES = ("onnxruntime", "numpy", "uvicorn", "uvloop", "httptools", "starlette", "orjson", "pillow")


def describe() -> dict[str, str]:
    """Returns CPU model, cores, load average, date, and the versions of Convoy and its libraries."""
    python, libraries = _serving_versions()
    return {
        "CPU": cpu_model(),
        "cores": str(usable_cores()),
        "busy with other work": f"{os.getloadavg()[0]:.1f} (load average before the start; near 0 is idle)",
        "system": f"{platform.system()} {platform.machine()}, Python {python}",
        "date": datetime.now(UTC).date().isoformat(),
        "convoy": f"{version('convoy')}, commit {_commit()}",
        "versions": libraries,
        "generators": ", ".join(_generators()),
    }


def cpu_model() -> str:
    """Returns the name of the processor and its instruction sets for int8 and bfloat16."""
    flags = cpu_flags()
    instructions = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags]
    return f"{processor_name()} ({', '.join(instructions) or 'no AVX2'})"


def _serving_versions() -> tuple[str, str]:
    """Returns the versions of Python and of the libraries in the service's environment, which differs from this
    environment."""
    code = """
import platform, sys
from importlib.metadata import version
print(platform.python_version())
print(", ".join(f"{name} {version(name)}" for name in sys.argv[1:]))
"""
    process = subprocess.run([PYTHON, "-c", code, *LIBRARIES], capture_output=True, text=True, check=True)
    python, libraries = process.stdout.splitlines()
    return python, libraries


def _commit() -> str:
    changes = _git("status", "--porcelain", "--", "service")
    return (_git("rev-parse", "--short=10", "HEAD") or "unknown") + (" with changes in service/" if changes else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True).stdout.strip()


def _generators() -> list[str]:
    versions = []
    for command, pattern in ((["wrk", "-v"], r"wrk \S+"), (["h2load", "--version"], r"nghttp2/\S+")):
        try:
            process = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            continue
        if match := re.search(pattern, process.stdout + process.stderr):
            versions.append(match[0])
    return versions
