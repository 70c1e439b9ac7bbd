"""What Keras draws its batches from: the order and the augmentation follow from seed, epoch and batch index alone.

So a resumed run sees what an uninterrupted one would have seen, and batches may be made by any thread at any time.
"""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from training.augment import augment
from training.datasets.base import Dataset, Split
from training.errors import TrainingError
from training.recipes.base import Recipe

# One number each for what is drawn by chance, so that no two draws share a random stream.
SPLIT, ORDER, AUGMENTATION = range(3)

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Portions:
    """Indices into the data set: `train` and `validation` into its training split, `test` into its test split."""

    train: Indices
    validation: Indices
    test: Indices


def portion(dataset: Dataset, recipe: Recipe) -> Portions:
    """Splits the validation pictures off the training set and applies the recipe's `limit`.

    Raises TrainingError when that leaves nothing to train on.
    """
    shuffled = np.random.default_rng((recipe.seed, SPLIT)).permutation(len(dataset.train))
    cut = recipe.validation if recipe.limit is None else min(recipe.validation, recipe.limit)
    if cut >= len(shuffled):
        raise TrainingError(f"validation={cut} leaves nothing of {dataset.name}'s {len(shuffled):,} training pictures.")
    test = np.arange(len(dataset.test))
    return Portions(shuffled[cut:][: recipe.limit], shuffled[:cut], test[: recipe.limit])


class _Batches(keras.utils.PyDataset):
    """Batches of pictures, uint8 (n, height, width, channels), with one-hot labels, float32 (n, classes).

    Keras' own `workers` stay at 1: with more, its queue hands batches of one epoch to the next (seen on JAX).
    """

    def __init__(self, split: Split, indices: Indices, classes: int, batch_size: int) -> None:
        super().__init__(workers=1)
        self._split = split
        self._indices = indices
        self._one_hot = np.eye(classes, dtype=np.float32)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def _slice(self, order: Indices, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        chosen = order[index * self._batch_size : (index + 1) * self._batch_size]
        return self._split.pictures(chosen), self._one_hot[self._split.labels[chosen]]


class EvaluationBatches(_Batches):
    """The pictures at `indices` in their order, unchanged."""

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        return self._slice(self._indices, index)


class TrainingBatches(_Batches):
    """The pictures at `indices`, shuffled and augmented anew each epoch. Whoever trains sets `epoch` (from 0)."""

    def __init__(self, split: Split, indices: Indices, classes: int, recipe: Recipe) -> None:
        super().__init__(split, indices, classes, recipe.batch_size)
        self._recipe = recipe
        self.epoch = 0

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = np.random.default_rng((self._recipe.seed, ORDER, epoch)).permutation(self._indices)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        pictures, labels = self._slice(self._order, index)
        random = np.random.default_rng((self._recipe.seed, AUGMENTATION, self._epoch, index))
        return augment(pictures, self._recipe, random), labels
