"""The threads that decode images, taken in turns by who wants them: nobody's flood starves another's images.

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

AT_HAND = 2  # jobs a thread: the one it works on and its next, so that it never waits for the event loop


@dataclass(slots=True, eq=False)
class _Job:
    """`slot` is where its caller waits; a slot that is done already was given up."""

    slot: asyncio.Future[Any]
    function: Callable[[], Any]


class Decoders:
    """`threads` threads. Each owner has a queue; the owners' queues are served one job each, round and round."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._free = threads * AT_HAND
        self._waiting: dict[Hashable, deque[_Job]] = {}

    def run(self, owner: Hashable, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """What `function(*args)` returns or raises; cancelling it withdraws a job that has not begun."""
        slot: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(_Job(slot, partial(function, *args)))
        self._start()
        return slot

    def close(self) -> None:
        """Takes nothing new; does not wait for what is being decoded."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        while self._free and self._waiting:
            owner = next(iter(self._waiting))
            jobs = self._waiting.pop(owner)
            job = jobs.popleft()
            if jobs:
                self._waiting[owner] = jobs  # behind all others
            if not job.slot.done():
                self._free -= 1
                self._executor.submit(job.function).add_done_callback(partial(self._tell, job.slot))

    def _tell(self, slot: asyncio.Future[Any], done: Future[Any]) -> None:
        """On the executor's thread."""
        loop = slot.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._finish, slot, done)

    def _finish(self, slot: asyncio.Future[Any], done: Future[Any]) -> None:
        self._free += 1
        self._start()
        if slot.done() or done.cancelled():
            return
        error = done.exception()
        if error is None:
            slot.set_result(done.result())
        else:
            slot.set_exception(error)
