"""Shards of batches: the rows that one process makes when several processes train one network.

The shards of all processes together equal the batch that one process would make, including random numbers. Independent
of images and networks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.errors import TrainingError

Size = int | tuple[int, ...]


@dataclass(frozen=True)
class BatchShard:
    """The shard of process `rank` of `world_size`. Batches are spread evenly over the `devices` of all processes.

    Up to `devices` - 1 images that cannot be spread evenly are dropped at the end of an epoch; they differ between
    epochs.
    """

    rank: int = 0
    world_size: int = 1
    devices: int = 1

    def check(self, batch_size: int, **images: int) -> None:
        """Raises TrainingError if the devices cannot share the batch, or one of the sets of `images` is too small."""
        if batch_size % self.devices:
            raise TrainingError(
                f"batch_size is {batch_size}, for all {self.devices} devices together: set a multiple of "
                f"{self.devices}, for example --set batch_size={-(-batch_size // self.devices) * self.devices}."
            )
        for kind, count in images.items():
            if 0 < count < self.devices:
                raise TrainingError(f"{count} {kind} images are too few for {self.devices} devices.")

    def divisible_count(self, count: int) -> int:
        """Returns the largest number up to `count` that the devices can share evenly."""
        return count - count % self.devices

    def rows(self, count: int) -> slice:
        """Returns this process's rows of a batch of `count` images."""
        rows_per_process = count // self.world_size
        return slice(self.rank * rows_per_process, (self.rank + 1) * rows_per_process)


UNSHARDED = BatchShard()
"""The shard of a process that trains alone, on one device."""


class ShardedGenerator:
    """Random generator for one shard of a batch. It draws for all `count` images and returns the numbers at `rows`.

    The first dimension of `size` is the number of rows. Raises ValueError for another size.
    """

    def __init__(self, random: Generator, rows: slice, count: int) -> None:
        self._random = random
        self._rows = rows
        self._count = count

    def random(self, size: Size) -> NDArray[Any]:
        return self._random.random(self._full_size(size))[self._rows]

    def integers(self, low: int, high: int, size: Size, dtype: type = np.int64) -> NDArray[Any]:
        return self._random.integers(low, high, self._full_size(size), dtype)[self._rows]

    def uniform(self, low: float, high: float, size: Size) -> NDArray[Any]:
        return self._random.uniform(low, high, self._full_size(size))[self._rows]

    def normal(self, mean: float, deviation: float, size: Size) -> NDArray[Any]:
        return self._random.normal(mean, deviation, self._full_size(size))[self._rows]

    def _full_size(self, size: Size) -> tuple[int, ...]:
        first, *rest = (size,) if isinstance(size, int) else size
        if first != self._rows.stop - self._rows.start:
            raise ValueError(f"size {size} does not start with the number of rows")
        return self._count, *rest


RandomGenerator = Generator | ShardedGenerator
"""The random generator of augmentation."""
