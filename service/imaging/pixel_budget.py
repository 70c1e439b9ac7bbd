"""Limits the memory of all images that this process decodes at a time, and the pixels of one request. Thread-safe.

Knows no images: `limits` computes the cost of each.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from service.hardware import memory_limit_bytes
from service.imaging.limits import DecodeLimits
from service.settings import Settings

MEMORY_DIVISOR = 4
# A quarter of the memory for decoding is reserved for small images, so that they do not wait for large ones.
SMALL_MEMORY_DIVISOR = 4


def default_decode_memory_bytes(workers: int) -> int:
    """Returns a quarter of the container's memory limit, divided by the workers. Models and bodies need the rest."""
    return memory_limit_bytes() // (MEMORY_DIVISOR * workers)


def decode_limits(settings: Settings, processes: int) -> DecodeLimits:
    """Returns the limits of the settings for one of several processes that decode."""
    max_decoded_bytes = settings.max_decoded_bytes or default_decode_memory_bytes(processes)
    return DecodeLimits(settings.max_pixels, settings.max_header_pixels, max_decoded_bytes)


class MemorySemaphore:
    """A semaphore for `limit_bytes` of memory. Threads get memory in the order of their arrival.

    Small images therefore cannot delay a large one forever. An image that needs more than `limit_bytes` waits for all
    of it.
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
        """Number of threads that wait for memory."""
        return len(self._tickets)

    @contextmanager
    def acquire(self, size_bytes: int) -> Iterator[None]:
        """Waits until `size_bytes` are free, and holds them during the block."""
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


class DecodeMemory:
    """The memory for all images that this process decodes at a time: one part for small images, one for large ones.

    An image that needs more than its part takes the rest from the other, so that all images together never exceed
    `limit_bytes`. Only an image that exceeds it by itself does, and it is decoded alone.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._small_bytes = limit_bytes // SMALL_MEMORY_DIVISOR
        self._large_bytes = limit_bytes - self._small_bytes
        self._small = MemorySemaphore(self._small_bytes)
        self._large = MemorySemaphore(self._large_bytes)

    @property
    def waiting_count(self) -> int:
        """Number of threads that wait for memory."""
        return self._small.waiting_count + self._large.waiting_count

    @contextmanager
    def acquire(self, size_bytes: int, *, is_large: bool) -> Iterator[None]:
        """Waits until `size_bytes` are free, and holds them during the block."""
        if is_large:
            large, small = size_bytes, size_bytes - self._large_bytes
        else:
            large, small = size_bytes - self._small_bytes, size_bytes
        with ExitStack() as stack:
            # All threads acquire the parts in this order, so that no two wait for each other.
            if large > 0:
                stack.enter_context(self._large.acquire(large))
            if small > 0:
                stack.enter_context(self._small.acquire(small))
            yield


class PixelBudget:
    """The pixels that the images of one request may have together. The first image may have any number."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._consumed = 0
        self._lock = threading.Lock()

    def try_consume(self, pixels: int) -> bool:
        """Consumes `pixels` and returns True; returns False and consumes nothing if fewer remain."""
        with self._lock:
            if self._consumed and self._consumed + pixels > self.pixels:
                return False
            self._consumed += pixels
            return True
