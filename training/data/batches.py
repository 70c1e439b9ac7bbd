"""What Keras draws its batches from: the order and the augmentation follow from seed, epoch and batch index alone.

So a resumed run sees what an uninterrupted one would have seen, batches may be made by any thread at any time, and
several processes that make their rows of a batch make together what one process would have made.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from service.hardware import usable_cores
from training.data.augment import augment, mix_up, random_boxes
from training.data.datasets.base import Split
from training.data.device_augment import DeviceDataset
from training.data.input_stall import BatchTiming
from training.data.prefetch import Prefetcher
from training.data.sharding import WHOLE, BatchShard, Random, ShardedGenerator
from training.data.splits import AUGMENTATION, ORDER, Indices
from training.recipes.base import Recipe

Batch = tuple[Any, NDArray[np.float32]]


class _Batches(keras.utils.PyDataset):
    """Batches of images, uint8 (n, height, width, channels), with one-hot labels, float32 (n, classes).

    Where the images are `placed` on the device already, what it makes the batch of comes in their stead.

    `batch_size` is that of all processes together; of every batch only the rows of this process's `share` are made.
    `workers` threads (None: one a core) make them ahead. Keras' own `workers` stay at 1: with more, its queue hands
    batches of one epoch to the next (seen on JAX).
    """

    def __init__(
        self,
        split: Split,
        indices: Indices,
        classes: int,
        batch_size: int,
        workers: int | None = None,
        share: BatchShard = WHOLE,
        placed: DeviceDataset | None = None,
    ) -> None:
        super().__init__(workers=1)
        self._placed = placed
        self._split = split
        self._indices = indices
        self._one_hot = np.eye(classes, dtype=np.float32)
        self._batch_size = batch_size
        self._share = share
        self._ahead = Prefetcher(self._make, len(self), usable_cores() if workers is None else workers)
        self.handed: dict[int, BatchTiming] = {}
        """When each batch was last asked for and given."""
        self.failure: Exception | None = None
        """What making a batch has raised."""

    def __len__(self) -> int:
        return -(-self._share.usable(len(self._indices)) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        asked_s = time.monotonic()
        try:
            batch = self._ahead(index)
        except Exception as error:
            self.failure = error
            raise
        self.handed[index] = BatchTiming(asked_s, time.monotonic())
        return batch

    def _make(self, index: int) -> Batch:
        raise NotImplementedError

    def _chosen(self, order: Indices, index: int) -> Indices:
        """The images of the whole batch."""
        return order[: self._share.usable(len(order))][index * self._batch_size : (index + 1) * self._batch_size]

    def _labels(self, chosen: Indices) -> NDArray[np.float32]:
        return self._one_hot[self._split.labels[chosen]]


@contextmanager
def own_errors(*batches: _Batches) -> Iterator[None]:
    """Raises what a batch raised while Keras drew it, not what the backend makes of that (a text with a traceback)."""
    try:
        yield
    except Exception:
        if failure := next((b.failure for b in batches if b.failure), None):
            raise failure from None
        raise


class EvaluationBatches(_Batches):
    """The images at `indices` in their order, unchanged."""

    def _make(self, index: int) -> Batch:
        chosen = self._chosen(self._indices, index)
        chosen = chosen[self._share.rows(len(chosen))]
        if self._placed:
            return self._placed.batch(chosen, None), self._labels(chosen)
        return self._split.read_images(chosen), self._labels(chosen)


class TrainingBatches(_Batches):
    """The images at `indices`, shuffled and augmented anew each epoch. Whoever trains sets `epoch` (from 0)."""

    def __init__(
        self,
        split: Split,
        indices: Indices,
        classes: int,
        recipe: Recipe,
        workers: int | None = None,
        share: BatchShard = WHOLE,
        placed: DeviceDataset | None = None,
    ) -> None:
        super().__init__(split, indices, classes, recipe.batch_size, workers, share, placed)
        self._recipe = recipe
        self.epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = np.random.default_rng((self._recipe.seed, ORDER, epoch)).permutation(self._indices)
        self._ahead.restart()

    def _make(self, index: int) -> Batch:
        chosen = self._chosen(self._order, index)
        rows, random = self._share.rows(len(chosen)), self._random(index)
        if not self._recipe.mixup:
            return self._augmented(chosen[rows], ShardedGenerator(random, rows, len(chosen)))
        # Partners may lie in the rows of other processes: each makes the whole batch, and keeps its rows.
        images, labels = mix_up(*self._augmented(chosen, random), self._recipe.mixup, random)
        return images[rows], labels[rows]

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self._recipe.seed, AUGMENTATION, self._epoch, index))

    def _augmented(self, chosen: Indices, random: Random) -> Batch:
        if self._placed:
            return self._placed.batch(chosen, random), self._labels(chosen)
        return augment(self._images(chosen, random), self._recipe, random), self._labels(chosen)

    def _images(self, chosen: Indices, random: Random) -> NDArray[np.uint8]:
        recipe = self._recipe
        if not recipe.crop_area:
            return self._split.read_images(chosen)
        return self._split.parts(chosen, random_boxes(len(chosen), recipe.crop_area, recipe.crop_aspect, random))
