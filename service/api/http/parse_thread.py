"""The thread that parses large bodies while the event loop serves small requests. Clients take turns.

There is only one, because parsing holds the GIL most of the time, and more threads would delay the event loop.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from service.errors import TooLateToStart
from service.fair_threads import JOBS_PER_THREAD, FairThreads, Owner, QueuedJob

MAX_INLINE_BYTES = 65536
"""Bodies up to this size are parsed on the event loop."""
MAX_INLINE_JSON_BYTES = 4 * MAX_INLINE_BYTES
"""The limit for JSON, which is parsed faster, at 100 bytes per microsecond. 64 MNIST images have 166 KB, and take 25 %
longer in a thread (`v2 json x64` of tests.bench)."""

T = TypeVar("T")


class ParseThread:
    """Runs functions on large bodies, those of one client in the order of their arrival."""

    def __init__(
        self, timeout_s: float, on_rejected: Callable[[], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._timeout_s = timeout_s
        self._on_rejected = on_rejected
        self._thread = FairThreads(ThreadPoolExecutor(1, "parse"), 1, JOBS_PER_THREAD, clock)

    async def run(self, client: str, size_bytes: int, function: Callable[..., T], *args: Any) -> T:
        """Returns the result of `function(*args)`, which parses a body of this size, from the thread.

        Calls `on_rejected` and raises TooLateToStart if the client's earlier bodies will take longer than the timeout.
        """
        owner, loop = Owner(client), asyncio.get_running_loop()
        wait_s = self._thread.expected_done_s(owner, 0)
        if wait_s > self._timeout_s:
            self._on_rejected()
            message = f"Parsing of the body would start in {wait_s:.1f} s, later than the request may take."
            raise TooLateToStart(message, wait_s - self._timeout_s)
        future: asyncio.Future[T] = loop.create_future()
        self._thread.add(QueuedJob(owner, size_bytes, future, partial(function, *args)))
        return await future

    def close(self) -> None:
        """Drops the functions that have not started."""
        self._thread.close()
