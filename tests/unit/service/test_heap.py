"""A worker keeps the memory that a large request used, and gives back what a model used."""

import resource
import subprocess
import sys

FAULTS_OF_LARGE_REQUESTS = """
import resource
from service import heap
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
    assert faults("heap.keep_freed()") < pages / 50
