"""The threads that decode images. Clients take turns, so that many images of one client do not delay the others.

Large images have separate threads. The operating system shares the cores between these and the threads for small
images, so small images never wait for a large one.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from service.errors import DeadlineTooShort, TooLateToStart
from service.fair_threads import JOBS_PER_THREAD, FairThreads, Owner, QueuedJob

T = TypeVar("T")

LARGE_WORK = 2_000_000
"""Jobs with more work than this run on the threads for large images. The unit is about one pixel."""
LARGE_NICENESS = 10
"""Niceness of the threads for large images. They get a tenth of the CPU time of other threads on a busy core."""
SAFETY_FACTOR = 1.1


class DecodePool:
    """Two sets of `threads` threads: one for large images, and one for all others."""

    def __init__(self, threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._small = FairThreads(ThreadPoolExecutor(threads, "decode"), threads, JOBS_PER_THREAD, clock)
        large_threads = ThreadPoolExecutor(threads, "decode-large", initializer=os.nice, initargs=(LARGE_NICENESS,))
        self._large = FairThreads(large_threads, threads, 1, clock)

    def check_in_time(self, owner: Owner, work: int, timeout_s: float) -> None:
        """Raises TooLateToStart if new jobs of `work` together would not be done within `timeout_s`, and
        DeadlineTooShort if even idle threads could not do them."""
        threads = self._threads_for(work)
        wait_s = SAFETY_FACTOR * threads.expected_done_s(owner, work)
        if wait_s <= timeout_s:
            return
        if (alone_s := SAFETY_FACTOR * threads.alone_s(work)) > timeout_s:
            raise DeadlineTooShort(f"Decoding the images takes {alone_s:.3g} s, longer than the time limit.")
        message = f"The images would be decoded in {wait_s:.1f} s, longer than the request may take."
        raise TooLateToStart(message, max(0.0, wait_s - timeout_s))

    def alone_s(self, works: Sequence[int]) -> float:
        """Expected seconds of new jobs with these amounts of work on idle threads. Each job has one thread."""
        threads = self._threads_for(max(works))
        return SAFETY_FACTOR * max(threads.alone_s(sum(works)), threads.job_s(max(works)))

    def run(self, owner: Owner, work: int, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Returns a future with the result of `function(*args)`. Cancelling it cancels a job that has not started."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._threads_for(work).add(QueuedJob(owner, work, future, partial(function, *args)))
        return future

    def close(self) -> None:
        """Rejects new jobs and drops the queued ones. Does not wait for the running ones."""
        self._small.close()
        self._large.close()

    def _threads_for(self, work: int) -> FairThreads:
        return self._large if work > LARGE_WORK else self._small
