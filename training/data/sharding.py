"""The random numbers of a batch of which only some rows are made here: the same as if the whole batch were drawn.

So what several processes make of one batch fits together to what one process would have made.
"""

from typing import Any

from numpy.random import Generator
from numpy.typing import NDArray

Size = int | tuple[int, ...]


class ShardedGenerator:
    """The draws of a generator for `count` images, of which it gives those at `rows`.

    Every draw is one number or more an image: `size` begins with the number of rows. Raises ValueError for another.
    """

    def __init__(self, random: Generator, rows: slice, count: int) -> None:
        self._random = random
        self._rows = rows
        self._count = count

    def random(self, size: Size) -> NDArray[Any]:
        return self._random.random(self._whole(size))[self._rows]

    def integers(self, low: int, high: int, size: Size) -> NDArray[Any]:
        return self._random.integers(low, high, self._whole(size))[self._rows]

    def uniform(self, low: float, high: float, size: Size) -> NDArray[Any]:
        return self._random.uniform(low, high, self._whole(size))[self._rows]

    def normal(self, mean: float, deviation: float, size: Size) -> NDArray[Any]:
        return self._random.normal(mean, deviation, self._whole(size))[self._rows]

    def _whole(self, size: Size) -> tuple[int, ...]:
        first, *others = (size,) if isinstance(size, int) else size
        if first != self._rows.stop - self._rows.start:
            raise ValueError(f"a draw of {size} is none of one row an image")
        return self._count, *others


Random = Generator | ShardedGenerator
"""What augmentation draws from."""
