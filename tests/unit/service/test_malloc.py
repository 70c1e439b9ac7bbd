"""A worker keeps the memory that a large request used, and returns the memory that a model used."""

import gc
import resource
import subprocess
import sys
import weakref

from service import malloc

COUNT_PAGE_FAULTS = """
import resource
from service import malloc
{setup}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        [bytearray(2**20) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def page_faults(setup: str) -> int:
    script = COUNT_PAGE_FAULTS.format(setup=setup)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout)


def test_freed_memory_is_kept_for_the_next_request() -> None:
    pages = 50 * 4 * 2**20 // resource.getpagesize()
    assert page_faults("pass") > pages / 2, "otherwise there is nothing to keep"
    assert page_faults("malloc.configure()") < pages / 50


TRIM_AFTER_PEAK = """
import asyncio, os
from service import malloc
malloc.configure()
malloc.TRIM_INTERVAL_S = 0.01
def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
async def main():
    peak = [bytearray(os.urandom(2**20)) for _ in range(100)]
    kept = peak[::10]  # scattered, so that the end of the heap cannot simply be trimmed
    del peak
    peak_mib = resident_mib()
    task = asyncio.create_task(malloc.trim_regularly(lambda: None))
    async with asyncio.timeout(30):
        while resident_mib() > peak_mib - 60:
            await asyncio.sleep(0.01)
asyncio.run(main())
"""


def test_memory_of_a_load_peak_is_returned_to_the_system() -> None:
    subprocess.run([sys.executable, "-c", TRIM_AFTER_PEAK], check=True)


class ReferenceCycle:
    """A reference cycle, like that of an exception and the frame that stores it."""

    def __init__(self) -> None:
        self.itself = self


def test_reference_cycles_are_collected_by_a_trim() -> None:
    """Python alone would rarely collect it: see `worker.GC_THRESHOLDS`."""
    cycle = ReferenceCycle()
    reference = weakref.ref(cycle)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        del cycle
        assert reference() is not None, "otherwise there is nothing to return"
        malloc.trim()
    finally:
        if was_enabled:
            gc.enable()
    assert reference() is None


GARBAGE_OF_TRIM = """
import gc
from service import malloc
malloc.trim()
gc.disable()
for _ in range(10):
    malloc.trim()
print(gc.collect())
"""


def test_a_trim_leaves_no_garbage() -> None:
    script = [sys.executable, "-c", GARBAGE_OF_TRIM]
    assert int(subprocess.run(script, capture_output=True, check=True, text=True).stdout) == 0
