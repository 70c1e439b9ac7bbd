"""The threads that decode images. Owners take turns, so that many images of one owner do not delay the others.

Large images have separate threads. The operating system shares the cores between these and the threads for small
images, so small images never wait for a large one. Only the jobs run on the threads; everything else runs on the event
loop's thread, so there are no locks.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from service.errors import DeadlineTooShort, TooLateToStart

T = TypeVar("T")

JOBS_PER_THREAD = 2  # the running job and the next one, so that no thread waits for the event loop
LARGE_WORK = 2_000_000
"""Jobs with more work than this run on the threads for large images. The unit is about one pixel."""
LARGE_NICENESS = 10
"""Niceness of the threads for large images. They get a tenth of the CPU time of other threads on a busy core."""
INITIAL_SECONDS_PER_WORK = 1e-8
"""Assumed seconds per unit of work until the first job is done, from decoding WebP and PNG on a core of 2020."""
SMOOTHING = 0.1
SAFETY_FACTOR = 1.1


@dataclass(slots=True, eq=False)
class QueuedJob:
    """A call, its estimated work, and its caller's future. If the future is done before the call, it was cancelled."""

    owner: Hashable
    work: int
    future: asyncio.Future[Any]
    function: Callable[[], Any]
    seconds: float = 0.0

    def run(self, clock: Callable[[], float]) -> Any:
        """Calls the function, and records its duration in `seconds`."""
        started_s = clock()
        try:
            return self.function()
        finally:
            self.seconds = clock() - started_s


class DecodePool:
    """Two sets of `threads` threads: one for large images, and one for all others."""

    def __init__(self, threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._small = FairThreads(ThreadPoolExecutor(threads, "decode"), threads, JOBS_PER_THREAD, clock)
        large_threads = ThreadPoolExecutor(threads, "decode-large", initializer=os.nice, initargs=(LARGE_NICENESS,))
        self._large = FairThreads(large_threads, threads, 1, clock)

    def check_in_time(self, owner: Hashable, work: int, timeout_s: float) -> None:
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

    def run(self, owner: Hashable, work: int, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Returns a future with the result of `function(*args)`. Cancelling it cancels a job that has not started."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._threads_for(work).add(QueuedJob(owner, work, future, partial(function, *args)))
        return future

    def close(self) -> None:
        """Rejects new jobs and drops the queued ones. Does not wait for the running ones."""
        self._small.close()
        self._large.close()

    def _threads_for(self, work: int) -> "FairThreads":
        return self._large if work > LARGE_WORK else self._small


class FairThreads:
    """`threads` threads that serve the queues of the owners round-robin, one job each."""

    def __init__(self, executor: Executor, threads: int, jobs_per_thread: int, clock: Callable[[], float]) -> None:
        self._executor = executor
        self._threads = threads
        self._free_jobs = threads * jobs_per_thread
        self._clock = clock
        self._queues: dict[Hashable, deque[QueuedJob]] = {}
        self._work_by_owner: dict[Hashable, int] = {}
        self._recent_s, self._recent_work = INITIAL_SECONDS_PER_WORK, 1.0

    def add(self, job: QueuedJob) -> None:
        self._queues.setdefault(job.owner, deque()).append(job)
        self._work_by_owner[job.owner] = self._work_by_owner.get(job.owner, 0) + job.work
        job.future.add_done_callback(partial(self._forget, job))
        self._start_jobs()

    def expected_done_s(self, owner: Hashable, work: int) -> float:
        """Expected seconds until a new job is done. Until then, each other owner gets at most as much work done as this
        one."""
        own = self._work_by_owner.get(owner, 0) + work
        others = (min(own, theirs) for key, theirs in self._work_by_owner.items() if key != owner)
        return self.alone_s(own + sum(others))

    def alone_s(self, work: int) -> float:
        """Expected seconds of new jobs of `work` together, without any others."""
        return self.job_s(work) / self._threads

    def job_s(self, work: int) -> float:
        """Expected seconds of one job on its thread."""
        return work * self._recent_s / self._recent_work

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start_jobs(self) -> None:
        while self._free_jobs and self._queues:
            owner = next(iter(self._queues))
            queue = self._queues.pop(owner)
            job = queue.popleft()
            if queue:
                self._queues[owner] = queue  # behind all other owners
            if not job.future.done():
                self._submit(job)

    def _submit(self, job: QueuedJob) -> None:
        try:
            outcome = self._executor.submit(job.run, self._clock)
        except RuntimeError as error:  # no thread can be started, so the job fails and takes no place
            job.future.set_exception(error)
        else:
            self._free_jobs -= 1
            outcome.add_done_callback(partial(self._report, job))

    def _forget(self, job: QueuedJob, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            job.function = _do_nothing  # the job may stay queued, and must not keep the image in memory
        # A job without work may end after its owner has been removed.
        remaining_work = self._work_by_owner.pop(job.owner, 0) - job.work
        if remaining_work:
            self._work_by_owner[job.owner] = remaining_work

    def _report(self, job: QueuedJob, outcome: Future[Any]) -> None:
        """Passes the outcome from the executor's thread to the event loop."""
        loop = job.future.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._finish, job, outcome)

    def _finish(self, job: QueuedJob, outcome: Future[Any]) -> None:
        self._free_jobs += 1
        if not outcome.cancelled():
            self._recent_s += SMOOTHING * (job.seconds - self._recent_s)
            self._recent_work += SMOOTHING * (job.work - self._recent_work)
        self._start_jobs()
        if job.future.done() or outcome.cancelled():
            return
        error = outcome.exception()
        if error is None:
            job.future.set_result(outcome.result())
        else:
            job.future.set_exception(error)


def _do_nothing() -> None:
    """Takes the place of the function of a cancelled job."""
