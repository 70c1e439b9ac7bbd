"""Makes the items of a sequence ahead of time in threads, and returns them in order. Independent of Keras and images.

An item must depend on its index alone, so that the number of threads affects only the speed. Threads are enough,
because decoding, scaling and most of NumPy release the interpreter lock.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")

SPARE_ITEMS = 2
"""Number of finished items that are kept in addition to the items in progress, so that one slow item does not stall the
caller."""


class Prefetcher(Generic[Item]):
    """Makes the next items while the caller uses the current one. If `workers` is 0, items are made on request."""

    def __init__(self, make_item: Callable[[int], Item], count: int, workers: int) -> None:
        self._make_item = make_item
        self._count = count
        self._window = workers + SPARE_ITEMS
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="prefetch") if workers else None
        self._futures: dict[int, Future[Item]] = {}
        self._lock = threading.Lock()

    def __call__(self, index: int) -> Item:
        """Returns the item at `index`. Re-raises the exception of `make_item`."""
        if self._threads is None:
            return self._make_item(index)
        with self._lock:
            for number in range(index, min(index + self._window, self._count)):
                if number not in self._futures:
                    self._futures[number] = self._threads.submit(self._make_item, number)
            future = self._futures.pop(index)
        return future.result()

    def clear(self) -> None:
        """Discards the items that were made ahead. Called when their contents change."""
        with self._lock:
            for future in self._futures.values():
                future.cancel()
            self._futures.clear()
