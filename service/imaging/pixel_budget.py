"""How much is decoded at once, and for one request: images take memory and time by their pixels.

Knows no images, only numbers of pixels. May be asked by several threads.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelSemaphore:
    """Room for so many pixels in the whole process. Who finds none waits, in the order of coming."""

    def __init__(self, pixels: int) -> None:
        self._free = pixels
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def acquire(self, pixels: int) -> Iterator[None]:
        """A context that has that much room, which must not be more than all there is."""
        with self._turn, self._changed:  # the first of those who wait: a large image is not passed for ever
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify()


class PixelBudget:
    """Pixels that one request may still bring."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._left = pixels
        self._taking = threading.Lock()

    def try_consume(self, pixels: int) -> bool:
        """Whether there were that many left; then they are taken."""
        with self._taking:
            if pixels > self._left:
                return False
            self._left -= pixels
            return True
