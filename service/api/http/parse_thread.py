"""The thread that parses large bodies while the event loop serves small requests.

There is only one, because parsing holds the GIL most of the time, and more threads would delay the event loop.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

MAX_INLINE_BYTES = 65536
"""Bodies up to this size are parsed on the event loop."""
MAX_INLINE_JSON_BYTES = 4 * MAX_INLINE_BYTES
"""The limit for JSON, which is parsed faster, at 100 bytes per microsecond. 64 MNIST images have 166 KB, and take 25 %
longer in a thread (`v2 json x64` of tests.bench)."""

T = TypeVar("T")


class ParseThread:
    """Runs functions on large bodies in the order of their arrival."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "parse")

    async def run(self, is_inline: bool, function: Callable[..., T], *args: Any) -> T:
        """Calls `function(*args)` inline or in the thread, and returns its result."""
        if is_inline:
            return function(*args)
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args))

    def close(self) -> None:
        """Drops the functions that have not started."""
        self._executor.shutdown(wait=False, cancel_futures=True)
