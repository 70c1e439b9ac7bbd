"""Threads that serve the queues of clients in turn, so that the jobs of one client do not delay those of the others.

Only the jobs run on the threads; everything else runs on the event loop's thread, so there are no locks.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

JOBS_PER_THREAD = 2  # the running job and the next one, so that no thread waits for the event loop
INITIAL_SECONDS_PER_WORK = 1e-8
"""Assumed seconds per unit of work until the first job is done. A core of 2020 decodes a pixel of WebP or PNG, or
parses a byte of JSON, in this time."""
MAX_SECONDS_PER_WORK = 20 * INITIAL_SECONDS_PER_WORK
"""Without a maximum, small files that are slow to open would make every large image look too late to start."""
SMOOTHING = 0.1

K = TypeVar("K")
V = TypeVar("V")


class Owner(NamedTuple):
    """Whose turn it is: clients take turns, and so do the queues of one client."""

    client: str
    queue: Hashable = ""


@dataclass(slots=True, eq=False)
class QueuedJob:
    """A call, its estimated work, and its caller's future. If the future is done before the call, it was cancelled."""

    owner: Owner
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


class FairThreads:
    """`threads` threads that serve the clients round-robin, one job each, and so the queues of each client."""

    def __init__(self, executor: Executor, threads: int, jobs_per_thread: int, clock: Callable[[], float]) -> None:
        self._executor = executor
        self._threads = threads
        self._free_jobs = threads * jobs_per_thread
        self._clock = clock
        self._queues: dict[str, dict[Hashable, deque[QueuedJob]]] = {}
        self._work_by_owner: dict[Owner, int] = {}
        self._recent_s, self._recent_work = INITIAL_SECONDS_PER_WORK, 1.0

    def add(self, job: QueuedJob) -> None:
        client, queue = job.owner
        self._queues.setdefault(client, {}).setdefault(queue, deque()).append(job)
        self._work_by_owner[job.owner] = self._work_by_owner.get(job.owner, 0) + job.work
        job.future.add_done_callback(partial(self._forget, job))
        self._start_jobs()

    def expected_done_s(self, owner: Owner, work: int) -> float:
        """Expected seconds until a new job is done. Until then, each other client, and each other queue of this client,
        gets at most as much work done as this one."""
        own = self._work_by_owner.get(owner, 0) + work
        by_client: Counter[str] = Counter()
        for other, theirs in self._work_by_owner.items():
            if other != owner:
                by_client[other.client] += min(own, theirs) if other.client == owner.client else theirs
        client_work = own + by_client.pop(owner.client, 0)
        return self.alone_s(client_work + sum(min(client_work, theirs) for theirs in by_client.values()))

    def alone_s(self, work: int) -> float:
        """Expected seconds of new jobs of `work` together, without any others."""
        return self.job_s(work) / self._threads

    def job_s(self, work: int) -> float:
        """Expected seconds of one job on its thread."""
        return work * min(self._recent_s / self._recent_work, MAX_SECONDS_PER_WORK)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start_jobs(self) -> None:
        while self._free_jobs and self._queues:
            job = self._pop_next()
            if not job.future.done():
                self._submit(job)

    def _pop_next(self) -> QueuedJob:
        client, queues = _pop_first(self._queues)
        name, queue = _pop_first(queues)
        job = queue.popleft()
        if queue:
            queues[name] = queue  # behind the client's other queues
        if queues:
            self._queues[client] = queues  # behind all other clients
        return job

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


def _pop_first(mapping: dict[K, V]) -> tuple[K, V]:
    key = next(iter(mapping))
    return key, mapping.pop(key)
