"""Selects the images to train on, to validate on and to test on, as the recipe says. Reads no image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.datasets.base import Dataset
from training.errors import TrainingError
from training.recipes.base import Recipe

# One number each for what is drawn by chance, so that no two draws share a random stream.
SPLIT_STREAM, ORDER_STREAM, AUGMENTATION_STREAM = range(3)

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SplitIndices:
    """Indices into the data set: `test` into its test split, the others into its training split, without overlap.

    `validation` chooses the epoch and stops the run. `holdout` decides afterwards: whether a graph of less precision is
    accepted, and whether a retrained network is published. `test` decides nothing.
    """

    train: Indices
    validation: Indices
    holdout: Indices
    test: Indices


def split_indices(dataset: Dataset, recipe: Recipe) -> SplitIndices:
    """Splits the images for validation and the held-out ones off the training set and applies the recipe's `limit`.

    Images that cannot be read are taken out at last, so that all others stay where they are. Raises TrainingError
    when that leaves nothing to train on.
    """
    shuffled = np.random.default_rng((recipe.seed, SPLIT_STREAM)).permutation(len(dataset.train))
    counts = [_count(size, recipe.limit, len(shuffled)) for size in (recipe.validation, recipe.holdout)]
    if sum(counts) >= len(shuffled):
        raise TrainingError(
            f"validation={counts[0]} and holdout={counts[1]} leave nothing of {dataset.name}'s {len(shuffled):,} "
            "training images."
        )
    validation, holdout, train = np.split(shuffled, np.cumsum(counts))
    parts = (_without(part, dataset.unreadable_train) for part in (train[: recipe.limit], validation, holdout))
    return SplitIndices(*parts, _without(_evenly_spaced(len(dataset.test), recipe.limit), dataset.unreadable_test))


def _count(size: int | float, limit: int | None, images: int) -> int:
    """Images of a part: `size` itself, or below 1 that share of all, at least one; at most `limit`."""
    count = max(1, round(size * images)) if 0 < size < 1 else int(size)
    return count if limit is None else min(count, limit)


def _evenly_spaced(count: int, limit: int | None) -> Indices:
    """At most `limit` of so many indices, at equal distances: folders list one class after the other."""
    return np.unique(np.linspace(0, count - 1, min(count, limit or count)).astype(np.int64))


def _without(indices: Indices, unreadable: tuple[int, ...]) -> Indices:
    return indices[~np.isin(indices, unreadable)]
