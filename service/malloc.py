"""Tunes glibc's malloc: freed memory is kept for the next requests, and returned to the system once a minute.

With another C library only Python's garbage is collected.
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
    """Before a process begins to serve: as glibc has it, what a large request frees goes back to the system, and the
    next one faults it in anew, page by page. That was over half of the time to parse 64 digits as JSON.

    One arena: with the usual eight a core each thread keeps what it once needed in its own, and every version of a
    model, which is loaded by a new thread, lies in another. Threads allocate while they hold Python's lock, mostly, so
    that they seldom meet there.
    """
    mallopt = _libc_function("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 4 * MIB)
        mallopt(M_TRIM_THRESHOLD, 16 * MIB)
        mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Gives all that nothing uses back to the system, objects that only hold each other included.

    Without it a model that came and went leaves holes of megabytes in the heap. Each version also leaves 4 KB of
    objects that hold each other, and a worker lets Python look for those so seldom (`worker.GC_THRESHOLDS`) that they
    pile up. Looking takes Python's lock for 2 ms at 1,000 busy connections: what is there from the start is frozen.
    """
    gc.collect()
    malloc_trim = _libc_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


async def trim_regularly(on_success: Callable[[], None]) -> None:
    """Trims the memory once a minute, and calls `on_success` each time, until it is cancelled.

    Otherwise a worker keeps the largest amount of memory that it ever needed at once. A trim takes milliseconds, in
    which no other thread can allocate.
    """
    while True:
        await asyncio.sleep(TRIM_INTERVAL_S)
        with contextlib.suppress(RuntimeError):  # no thread can be started now
            await asyncio.to_thread(trim)
        on_success()


@functools.cache
def _libc_function(name: str) -> Callable[..., int] | None:
    """A function of the C library, None where it has none of that name. Cached, because each lookup leaves garbage."""
    return getattr(ctypes.CDLL(None), name, None)
