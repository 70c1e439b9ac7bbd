"""Bounds on what is decoded at once in this process, in bytes, and for one request, in pixels.

Knows no images: `limits` measures what each costs. Thread-safe.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from service.hardware import memory_limit_bytes
from service.imaging.limits import DecodeLimits
from service.settings import Settings

MEMORY_DIVISOR = 4


def default_decode_memory_bytes(workers: int) -> int:
    """A quarter of the container's memory limit, divided by the workers: models and bodies need the rest."""
    return memory_limit_bytes() // (MEMORY_DIVISOR * workers)


def decode_limits(settings: Settings, processes: int) -> DecodeLimits:
    """The limits of the settings for one of several processes that decode."""
    max_decoded_bytes = settings.max_decoded_bytes or default_decode_memory_bytes(processes)
    return DecodeLimits(settings.max_pixels, settings.max_header_pixels, max_decoded_bytes)


class MemorySemaphore:
    """A semaphore for `limit_bytes` of memory. Threads that wait are served in the order of their arrival.

    A large image is not overtaken by small ones for ever. One that needs more than `limit_bytes` is decoded alone.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._free_bytes = limit_bytes
        self._tickets: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def free_bytes(self) -> int:
        return self._free_bytes

    @property
    def waiting_count(self) -> int:
        """Threads that wait for memory."""
        return len(self._tickets)

    @contextmanager
    def acquire(self, size_bytes: int) -> Iterator[None]:
        """A context that holds `size_bytes`; waits until they are free."""
        held_bytes, ticket = min(size_bytes, self._limit_bytes), object()
        with self._changed:
            self._tickets.append(ticket)
            self._changed.wait_for(lambda: self._tickets[0] is ticket and held_bytes <= self._free_bytes)
            self._tickets.popleft()
            self._free_bytes -= held_bytes
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += held_bytes
                self._changed.notify_all()


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
