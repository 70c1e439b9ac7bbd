"""The batches that Keras trains and evaluates on. Order and augmentation depend on seed, epoch and batch index alone.

Therefore a resumed run gets the same batches as an uninterrupted run. Any thread can make any batch at any time.
Several processes together make the same batch as one process.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from service.hardware import usable_cores
from training.data.augment import augment, random_crop_boxes, scaled_to_side
from training.data.class_balance import balanced_order, class_weights, split_weights
from training.data.datasets.base import Split
from training.data.datasets.image_files import resize_images
from training.data.device_augment import DeviceDataset
from training.data.input_stall import BatchTiming
from training.data.prefetch import Prefetcher
from training.data.sharding import UNSHARDED, BatchShard, RandomGenerator, ShardedGenerator
from training.data.soft_labels import cutmix, label_rows, mixup
from training.data.splits import AUGMENTATION_STREAM, ORDER_STREAM, Indices
from training.recipes.base import Recipe

Batch = tuple[Any, NDArray[np.float32]] | tuple[Any, NDArray[np.float32], NDArray[np.float32]]
"""Images (or the inputs of `AugmentOnDevice`), labels, and with class weights also the images' weights, (n,)."""


class ImageBatches(keras.utils.PyDataset):
    """Batches of images, uint8 (n, height, width, channels), with one-hot labels, float32 (n, classes).

    With `device_data`, a batch contains the inputs of `AugmentOnDevice` instead of images. `batch_size` counts the
    images of all processes together; this process makes only the rows of its `shard`. `workers` threads (None: one per
    core) make batches ahead. Keras' own `workers` must stay at 1: with more, its queue carried batches of one epoch
    over to the next (seen with the JAX backend).
    """

    def __init__(
        self,
        split: Split,
        indices: Indices,
        classes: int,
        batch_size: int,
        workers: int | None = None,
        shard: BatchShard = UNSHARDED,
        device_data: DeviceDataset | None = None,
    ) -> None:
        super().__init__(workers=1)
        self._device_data = device_data
        self._split = split
        self._indices = indices
        self._label_rows = label_rows(classes)
        self._batch_size = batch_size
        self._shard = shard
        self._prefetcher = Prefetcher(self._make_batch, len(self), usable_cores() if workers is None else workers)
        self.timings: dict[int, BatchTiming] = {}
        """Times of each batch's last request and completion, by batch index."""
        self.error: Exception | None = None
        """The exception raised while a batch was made."""

    def __len__(self) -> int:
        return -(-self._shard.divisible_count(len(self._indices)) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        requested_s = time.monotonic()
        try:
            batch = self._prefetcher(index)
        except Exception as error:
            self.error = error
            raise
        self.timings[index] = BatchTiming(requested_s, time.monotonic())
        return batch

    def _make_batch(self, index: int) -> Batch:
        raise NotImplementedError

    def _indices_of(self, order: Indices, index: int) -> Indices:
        """Returns the indices of the images of the whole batch, over all processes."""
        divisible = order[: self._shard.divisible_count(len(order))]
        return divisible[index * self._batch_size : (index + 1) * self._batch_size]

    def _labels(self, indices: Indices) -> NDArray[np.float32]:
        return self._label_rows[self._split.labels[indices]]

    @property
    def images_per_epoch(self) -> int:
        """Number of images in all batches of an epoch."""
        return min(self._shard.divisible_count(len(self._indices)), len(self) * self._batch_size)


@contextmanager
def reraise_batch_errors(*batches: ImageBatches) -> Iterator[None]:
    """Re-raises the exception of a failed batch in place of the backend's, which only contains its traceback as
    text."""
    try:
        yield
    except Exception:
        if error := next((b.error for b in batches if b.error), None):
            raise error from None
        raise


class EvaluationBatches(ImageBatches):
    """Batches of the images at `indices`, in that order, unchanged."""

    def _make_batch(self, index: int) -> Batch:
        indices = self._indices_of(self._indices, index)
        indices = indices[self._shard.rows(len(indices))]
        if self._device_data:
            return self._device_data.batch(indices, None), self._labels(indices)
        return self._split.read_images(indices), self._labels(indices)


class TrainingBatches(ImageBatches):
    """Batches of the images at `indices`, shuffled and augmented anew in each epoch. The caller sets `epoch` (from 0).

    With `progressive_side_px` the images have the side length that the recipe sets for the epoch. An incomplete last
    batch is dropped, because batch normalization would use the statistics of only a few images. The dropped images
    differ between epochs.
    """

    def __init__(
        self,
        split: Split,
        indices: Indices,
        classes: int,
        recipe: Recipe,
        workers: int | None = None,
        shard: BatchShard = UNSHARDED,
        device_data: DeviceDataset | None = None,
    ) -> None:
        super().__init__(split, indices, classes, recipe.batch_size, workers, shard, device_data)
        self._recipe = recipe
        self._label_rows = label_rows(classes, recipe.label_smoothing)
        if recipe.class_weight == "auto":
            self._label_rows *= class_weights(split.labels[indices], classes)[:, None]
        self.epoch = 0

    def __len__(self) -> int:
        return max(1, self._shard.divisible_count(len(self._indices)) // self._batch_size)

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._side_px = self._recipe.side_px_at(epoch)
        random = np.random.default_rng((self._recipe.seed, ORDER_STREAM, epoch))
        if self._recipe.balanced_sampling:
            self._order = balanced_order(self._indices, self._split.labels[self._indices], random)
        else:
            self._order = random.permutation(self._indices)
        self._prefetcher.clear()

    def _make_batch(self, index: int) -> Batch:
        images, labels = self._images_and_labels(index)
        return (images, labels) if self._recipe.class_weight == "none" else (images, *split_weights(labels))

    def _images_and_labels(self, index: int) -> tuple[Any, NDArray[np.float32]]:
        indices = self._indices_of(self._order, index)
        rows, random = self._shard.rows(len(indices)), self._batch_generator(index)
        recipe = self._recipe
        if not recipe.mixup and not recipe.cutmix:
            return self._augment(indices[rows], ShardedGenerator(random, rows, len(indices)))
        # An image may be mixed with one from another process's rows, so each process makes the whole batch and keeps
        # its own rows.
        mix, alpha = (mixup, recipe.mixup) if recipe.mixup else (cutmix, recipe.cutmix)
        images, labels = mix(*self._augment(indices, random), alpha, random)
        return images[rows], labels[rows]

    def _batch_generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self._recipe.seed, AUGMENTATION_STREAM, self._epoch, index))

    def _augment(self, indices: Indices, random: RandomGenerator) -> tuple[Any, NDArray[np.float32]]:
        if self._device_data:
            return self._device_data.batch(indices, random), self._labels(indices)
        recipe, side_px = self._recipe, self._side_px
        if side_px is not None:
            recipe = scaled_to_side(recipe, side_px)
        return augment(self._read_images(indices, side_px, random), recipe, random), self._labels(indices)

    def _read_images(self, indices: Indices, side_px: int | None, random: RandomGenerator) -> NDArray[np.uint8]:
        recipe = self._recipe
        if recipe.crop_area:
            boxes = random_crop_boxes(len(indices), recipe.crop_area, recipe.crop_aspect, random)
            return self._split.read_crops(indices, boxes, side_px)
        images = self._split.read_images(indices)
        return images if side_px in (None, images.shape[1]) else resize_images(images, side_px)
