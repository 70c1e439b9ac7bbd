"""A worker keeps the memory that a large request used, and does not stop to look for garbage every dozen requests."""

import resource
import subprocess
import sys

FAULTS_OF_LARGE_REQUESTS = """
import resource
from service.tuning import tune
{tune}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        [bytearray(2**20) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(tune: str) -> int:
    script = FAULTS_OF_LARGE_REQUESTS.format(tune=tune)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout)


def test_freed_memory_is_kept_for_the_next_request() -> None:
    pages = 50 * 4 * 2**20 // resource.getpagesize()
    assert faults("pass") > pages / 2, "else there is nothing to tune"
    assert faults("tune()") < pages / 50
