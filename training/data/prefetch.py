"""Items of a sequence made ahead by threads, and given in order. Knows no Keras, no image and no random number.

Whatever makes an item must depend on its index alone: then the number of threads changes nothing but the speed.
Threads are enough: decoding, scaling and most of NumPy release the interpreter.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")

SPARE = 2
"""Items that wait ready beside those being made, so that a slow one is not waited for at once."""


class Prefetcher(Generic[Item]):
    """Makes the items after the one asked for while that one is used. Without workers, each when it is asked for."""

    def __init__(self, make: Callable[[int], Item], count: int, workers: int) -> None:
        self._make = make
        self._count = count
        self._ahead = workers + SPARE
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="prefetch") if workers else None
        self._coming: dict[int, Future[Item]] = {}
        self._lock = threading.Lock()

    def __call__(self, index: int) -> Item:
        """The item of that index. Raises what making it raised."""
        if self._threads is None:
            return self._make(index)
        with self._lock:
            for number in range(index, min(index + self._ahead, self._count)):
                if number not in self._coming:
                    self._coming[number] = self._threads.submit(self._make, number)
            asked = self._coming.pop(index)
        return asked.result()

    def restart(self) -> None:
        """Forgets what was made ahead, because the items are others from now on."""
        with self._lock:
            for future in self._coming.values():
                future.cancel()
            self._coming.clear()
