"""Bounds on the pixels that are decoded at once and for one request: memory and time grow with pixels, not images.

Knows numbers of pixels only. Thread-safe.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelSemaphore:
    """A semaphore for `pixels` pixels in the whole process. Those who wait are served in the order of their arrival."""

    def __init__(self, pixels: int) -> None:
        self._free = pixels
        self._first_in_line = threading.Lock()
        self._released = threading.Condition()

    @contextmanager
    def acquire(self, pixels: int) -> Iterator[None]:
        """A context that holds `pixels`, which must not exceed the total; waits until they are free."""
        # Only the first in line waits for the condition, so that small images cannot overtake a large one for ever.
        with self._first_in_line, self._released:
            self._released.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._released:
                self._free += pixels
                self._released.notify()


class PixelBudget:
    """The pixels that the images of one request may have together."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._remaining = pixels
        self._lock = threading.Lock()

    def try_consume(self, pixels: int) -> bool:
        """Consumes `pixels` and returns True, or returns False and consumes nothing when fewer remain."""
        with self._lock:
            if pixels > self._remaining:
                return False
            self._remaining -= pixels
            return True
