"""The thread that parses large bodies, so that the event loop serves small requests meanwhile.

There is one: what is parsed holds Python's lock for most of the time, and each further thread would delay the loop.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

MAX_INLINE_BYTES = 65536
"""Bodies up to this size are parsed on the event loop."""
MAX_INLINE_JSON_BYTES = 4 * MAX_INLINE_BYTES
"""JSON is parsed faster, 100 bytes per microsecond. 64 digits have 166 KB, and take 25 % longer by way of a thread
(`v2 json x64` of tests.bench)."""

T = TypeVar("T")


class ParseThread:
    """Runs functions on large bodies in the order of their arrival."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "parse")

    async def run(self, is_inline: bool, function: Callable[..., T], *args: Any) -> T:
        """Returns `function(*args)`, which is called either here or in the thread."""
        if is_inline:
            return function(*args)
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args))

    def close(self) -> None:
        """Drops what has not begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)
