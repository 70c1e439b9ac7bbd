"""A worker keeps the memory that a large request used, and gives back what a model used."""

import gc
import resource
import subprocess
import sys
import weakref

from service import malloc

FAULTS_OF_LARGE_REQUESTS = """
import resource
from service import malloc
{keep}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        [bytearray(2**20) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(keep: str) -> int:
    script = FAULTS_OF_LARGE_REQUESTS.format(keep=keep)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout)


def test_freed_memory_is_kept_for_the_next_request() -> None:
    pages = 50 * 4 * 2**20 // resource.getpagesize()
    assert faults("pass") > pages / 2, "else there is nothing to keep"
    assert faults("malloc.configure()") < pages / 50


HELD_AFTER_A_BUSY_MOMENT = """
import asyncio, os
from service import malloc
malloc.configure()
malloc.TRIM_INTERVAL_S = 0.01
def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
async def main():
    moment = [bytearray(os.urandom(2**20)) for _ in range(100)]
    kept = moment[::10]  # lies between, so that the heap cannot just end sooner
    del moment
    held = resident_mib()
    task = asyncio.create_task(malloc.trim_regularly())
    async with asyncio.timeout(30):
        while resident_mib() > held - 60:
            await asyncio.sleep(0.01)
asyncio.run(main())
"""


def test_what_a_busy_moment_needed_is_given_back_in_time() -> None:
    subprocess.run([sys.executable, "-c", HELD_AFTER_A_BUSY_MOMENT], check=True)


class Held:
    """Something that only holds itself, as an exception and the frame that keeps it do."""

    def __init__(self) -> None:
        self.itself = self


def test_what_only_holds_itself_is_given_back() -> None:
    """Python alone would hardly ever look for it: see `worker.GC_THRESHOLDS`."""
    held = Held()
    gone = weakref.ref(held)
    was_on = gc.isenabled()
    gc.disable()
    try:
        del held
        assert gone() is not None, "else there is nothing to give back"
        malloc.trim()
    finally:
        if was_on:
            gc.enable()
    assert gone() is None


GARBAGE_OF_GIVING_BACK = """
import gc
from service import malloc
malloc.trim()
gc.disable()
for _ in range(10):
    malloc.trim()
print(gc.collect())
"""


def test_giving_back_leaves_no_garbage_itself() -> None:
    script = [sys.executable, "-c", GARBAGE_OF_GIVING_BACK]
    assert int(subprocess.run(script, capture_output=True, check=True, text=True).stdout) == 0
