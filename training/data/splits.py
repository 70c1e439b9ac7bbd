"""Which images of a data set are trained on, validated on and tested on. Follows from the recipe; reads no image."""

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
    """Indices into the data set: `train` and `validation` into its training split, `test` into its test split."""

    train: Indices
    validation: Indices
    test: Indices


def split_indices(dataset: Dataset, recipe: Recipe) -> SplitIndices:
    """Splits the validation images off the training set and applies the recipe's `limit`.

    Images that cannot be read are taken out at last, so that all others stay where they are. Raises TrainingError
    when that leaves nothing to train on.
    """
    shuffled = np.random.default_rng((recipe.seed, SPLIT_STREAM)).permutation(len(dataset.train))
    cut = _validation_count(recipe, len(shuffled))
    if cut >= len(shuffled):
        raise TrainingError(f"validation={cut} leaves nothing of {dataset.name}'s {len(shuffled):,} training images.")
    test = _evenly_spaced(len(dataset.test), recipe.limit)
    train = _without(shuffled[cut:][: recipe.limit], dataset.unreadable_train)
    return SplitIndices(
        train, _without(shuffled[:cut], dataset.unreadable_train), _without(test, dataset.unreadable_test)
    )


def _validation_count(recipe: Recipe, count: int) -> int:
    """How many of so many training images; a share, however small, is at least one."""
    desired_count = int(recipe.validation)
    if 0 < recipe.validation < 1:
        desired_count = max(1, round(recipe.validation * count))
    return desired_count if recipe.limit is None else min(desired_count, recipe.limit)


def _evenly_spaced(count: int, limit: int | None) -> Indices:
    """At most `limit` of so many indices, at equal distances: folders list one class after the other."""
    return np.unique(np.linspace(0, count - 1, min(count, limit or count)).astype(np.int64))


def _without(indices: Indices, unreadable: tuple[int, ...]) -> Indices:
    return indices[~np.isin(indices, unreadable)]
