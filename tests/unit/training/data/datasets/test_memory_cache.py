"""The cache keeps images up to its limit; other images are made again."""

import numpy as np

from training.data.datasets.memory_cache import ImageCache


def test_the_first_images_that_fit_are_cached() -> None:
    calls: list[int] = []

    def make(number: int) -> np.ndarray:
        calls.append(number)
        return np.full((10, 10, 1), number, np.uint8)

    cache = ImageCache(limit_bytes=250)
    for _ in range(3):
        for number in range(4):
            assert (cache.get_or_make(number, lambda number=number: make(number)) == number).all()
    assert calls == [0, 1, 2, 3, 2, 3, 2, 3]
