"""How a worker's process is set up: what Python and the C library choose for short scripts is slow for a service."""

import ctypes
import gc
import sys

SWITCH_INTERVAL_S = 0.0005
# With a thousand requests under way Python would look for garbage in all of them again and again: by default after
# 700 new objects, which is about a dozen requests. Nearly all garbage here goes without that.
GC_THRESHOLDS = (50_000, 20, 50)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MIB = 2**20


def tune() -> None:
    """For a worker's process, before it begins to serve."""
    gc.set_threshold(*GC_THRESHOLDS)
    # Beside a busy thread the event loop would wait 5 ms, Python's default, each time it needs the interpreter.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """glibc gives back what a large request frees, and the next one faults it in anew, page by page: that was over
    half of the time to parse 64 digits as JSON. Other C libraries have no such function."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 4 * MIB)
        mallopt(M_TRIM_THRESHOLD, 16 * MIB)
