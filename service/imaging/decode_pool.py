"""The threads that decode images. Owners take turns, so that a burst of images for one does not delay the others.

Everything but the jobs themselves runs on the event loop's thread, so there are no locks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

JOBS_PER_THREAD = 2  # the running one and the next, so that no thread ever waits for the event loop


@dataclass(slots=True, eq=False)
class QueuedCall:
    """A call, and the future of its caller; a future that is done already was cancelled."""

    future: asyncio.Future[Any]
    function: Callable[[], Any]


class DecodePool:
    """`threads` threads. Each owner has a queue; the queues are served round-robin, one job each."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._free_jobs = threads * JOBS_PER_THREAD
        self._queues: dict[Hashable, deque[QueuedCall]] = {}

    def run(self, owner: Hashable, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """The future result of `function(*args)`; cancelling it withdraws a job that has not started."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(owner, deque()).append(QueuedCall(future, partial(function, *args)))
        self._start_jobs()
        return future

    def close(self) -> None:
        """Rejects new jobs and drops the queued ones; does not wait for the running ones."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start_jobs(self) -> None:
        while self._free_jobs and self._queues:
            owner = next(iter(self._queues))
            queue = self._queues.pop(owner)
            job = queue.popleft()
            if queue:
                self._queues[owner] = queue  # behind all other owners
            if not job.future.done():
                self._free_jobs -= 1
                self._executor.submit(job.function).add_done_callback(partial(self._report, job.future))

    def _report(self, future: asyncio.Future[Any], outcome: Future[Any]) -> None:
        """Passes the outcome from the executor's thread to the event loop."""
        loop = future.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._finish, future, outcome)

    def _finish(self, future: asyncio.Future[Any], outcome: Future[Any]) -> None:
        self._free_jobs += 1
        self._start_jobs()
        if future.done() or outcome.cancelled():
            return
        error = outcome.exception()
        if error is None:
            future.set_result(outcome.result())
        else:
            future.set_exception(error)
