"""Tunes glibc's malloc: freed memory is kept for the next requests, and returned to the system once a minute.

With other C libraries, only Python's garbage is collected.
"""

import asyncio
import contextlib
import ctypes
import functools
import gc
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
MIB = 2**20
TRIM_INTERVAL_S = 60.0


def configure() -> None:
    """Configures malloc before a process starts to serve.

    By default, glibc returns the memory of a large request to the system, and the next request causes a page fault for
    every page. That took over half of the time to parse 64 MNIST images in JSON.

    Only one arena is used. With the default of eight per core, each thread keeps the memory that it once needed, and
    every version of a model, which a new thread loads, uses another arena. Threads mostly allocate while they hold the
    GIL, so they rarely compete for the arena.
    """
    mallopt = _libc_function("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 4 * MIB)
        mallopt(M_TRIM_THRESHOLD, 16 * MIB)
        mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Returns unused memory to the system, including that of reference cycles.

    Otherwise an unloaded model leaves holes of megabytes in the heap. Each version also leaves 4 KB in reference
    cycles, which would accumulate, because a worker rarely collects them (`worker.GC_THRESHOLDS`). The collection holds
    the GIL for 2 ms at 1,000 busy connections. Objects that exist from the start are frozen and not scanned.
    """
    gc.collect()
    malloc_trim = _libc_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


async def trim_regularly(on_success: Callable[[], None]) -> None:
    """Trims the memory once a minute, and calls `on_success` each time, until it is cancelled.

    Otherwise a worker keeps the largest amount of memory that it has ever needed at one time. A trim takes
    milliseconds, during which no other thread can allocate.
    """
    while True:
        await asyncio.sleep(TRIM_INTERVAL_S)
        with contextlib.suppress(RuntimeError):  # no thread can be started
            await asyncio.to_thread(trim)
        on_success()


@functools.cache
def _libc_function(name: str) -> Callable[..., int] | None:
    """Returns a function of the C library, or None. Cached, because each lookup leaves garbage."""
    return getattr(ctypes.CDLL(None), name, None)
