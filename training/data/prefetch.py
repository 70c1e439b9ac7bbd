"""Items of a sequence made ahead by threads, and given in order. Knows no Keras, no image and no random number.

Whatever makes an item must depend on its index alone: then the number of threads changes nothing but the speed.
Threads are enough: decoding, scaling and most of NumPy release the interpreter.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")

SPARE_ITEMS = 2
"""Items that wait ready beside those being made, so that a slow one is not waited for at once."""


class Prefetcher(Generic[Item]):
    """Makes the items after the one asked for while that one is used. Without workers, each when it is asked for."""

    def __init__(self, make_item: Callable[[int], Item], count: int, workers: int) -> None:
        self._make_item = make_item
        self._count = count
        self._window = workers + SPARE_ITEMS
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="prefetch") if workers else None
        self._futures: dict[int, Future[Item]] = {}
        self._lock = threading.Lock()

    def __call__(self, index: int) -> Item:
        """The item of that index. Raises what making it raised."""
        if self._threads is None:
            return self._make_item(index)
        with self._lock:
            for number in range(index, min(index + self._window, self._count)):
                if number not in self._futures:
                    self._futures[number] = self._threads.submit(self._make_item, number)
            future = self._futures.pop(index)
        return future.result()

    def clear(self) -> None:
        """Forgets what was made ahead, because the items are others from now on."""
        with self._lock:
            for future in self._futures.values():
                future.cancel()
            self._futures.clear()
