"""Keeps decoded images in memory up to a limit. An image beyond the limit is decoded again each time."""

import threading
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from service.hardware import free_memory_bytes

FREE_MEMORY_FRACTION = 0.25
"""Fraction of the free memory that the cache may use. Free memory is measured when a data set is opened."""


class ImageCache:
    """Images by key, up to `limit_bytes` in all. Images are never evicted: every epoch reads every image once, so
    eviction would not increase the number of hits."""

    def __init__(self, limit_bytes: int) -> None:
        self._remaining_bytes = limit_bytes
        self._images: dict[Hashable, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def get_or_make(self, key: Hashable, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Returns the cached image, or calls `make`. May be called from several threads."""
        image = self._images.get(key)
        if image is None:
            image = make()
            self._keep(key, image)
        return image

    def _keep(self, key: Hashable, image: NDArray[np.uint8]) -> None:
        with self._lock:
            if key not in self._images and image.nbytes <= self._remaining_bytes:
                self._remaining_bytes -= image.nbytes
                self._images[key] = image


def cache_limit_bytes() -> int:
    """Returns a quarter of the free memory of this machine or container."""
    return int(FREE_MEMORY_FRACTION * free_memory_bytes())
