"""Selects a recipe's images for training, validation and test. Images are not read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.datasets.base import Dataset
from training.data.datasets.folder_test_split import path_fraction
from training.errors import TrainingError
from training.recipes.base import Recipe

# Each kind of random draw has its own stream, so that no two draws are correlated.
SPLIT_STREAM, ORDER_STREAM, AUGMENTATION_STREAM = range(3)

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SplitIndices:
    """Indices of images: `test` in the test split, the others in the training split, without overlap.

    `validation` selects the epoch and stops the run. `holdout` decides later whether a reduced-precision graph is
    accepted and whether a retrained network is published. `test` influences no decision.
    """

    train: Indices
    validation: Indices
    holdout: Indices
    test: Indices


def split_indices(dataset: Dataset, recipe: Recipe) -> SplitIndices:
    """Splits validation and held-out images off the training set and applies the recipe's `limit`.

    The result depends on the recipe's split seed. Unreadable images are removed last, so that they do not move other
    images between the sets. Raises TrainingError if no training image is left.
    """
    split = _split_by_path if dataset.split_paths else _split_by_position
    train, validation, holdout = (
        _without(part[: recipe.limit], dataset.unreadable_train) for part in split(dataset, recipe)
    )
    test = _without(_evenly_spaced(len(dataset.test), recipe.limit), dataset.unreadable_test)
    return SplitIndices(train, validation, holdout, test)


def _split_by_position(dataset: Dataset, recipe: Recipe) -> tuple[Indices, Indices, Indices]:
    """Returns the training, validation and held-out images, drawn from a random permutation."""
    shuffled = np.random.default_rng((recipe.effective_split_seed, SPLIT_STREAM)).permutation(len(dataset.train))
    counts = [_count(size, recipe.limit, len(shuffled)) for size in (recipe.validation, recipe.holdout)]
    _check_rest(dataset, *counts)
    validation, holdout, train = np.split(shuffled, np.cumsum(counts))
    return train, validation, holdout


def _split_by_path(dataset: Dataset, recipe: Recipe) -> tuple[Indices, Indices, Indices]:
    """Returns the training, validation and held-out images. Each image is drawn independently, by a hash of its path.

    Validation images have the lowest draws, held-out images the highest. A fraction (below 1) is met on average, and
    added or removed images do not move other images: an image that a network was trained on is never held out from the
    next network. If a set has a fixed number of images, added images can move some of its images into the training set,
    and removed images can move some back.
    """
    stream = f"{recipe.effective_split_seed}\0training"
    draws = np.array([path_fraction(path, stream) for path in dataset.split_paths])
    order = np.argsort(draws, kind="stable")
    validation_count = _count_below(recipe.validation, draws)
    holdout_count = _count_below(recipe.holdout, 1 - draws)
    _check_rest(dataset, validation_count, holdout_count)
    train = order[validation_count : len(order) - holdout_count]
    return train, order[:validation_count], order[::-1][:holdout_count]


def _check_rest(dataset: Dataset, validation_count: int, holdout_count: int) -> None:
    if validation_count + holdout_count >= len(dataset.train):
        raise TrainingError(
            f"validation={validation_count} and holdout={holdout_count} leave none of the {len(dataset.train):,} "
            f"training images of {dataset.name}."
        )


def _count_below(size: int | float, draws: NDArray[np.float64]) -> int:
    """Returns the size of a set: `size` images, or for a fraction below 1 the number of images with a lower draw, at
    least one."""
    return max(1, int((draws < size).sum())) if 0 < size < 1 else int(size)


def _count(size: int | float, limit: int | None, images: int) -> int:
    """Returns the size of a set: `size` images, or for a fraction below 1 at least one; at most `limit`."""
    count = max(1, round(size * images)) if 0 < size < 1 else int(size)
    return count if limit is None else min(count, limit)


def _evenly_spaced(count: int, limit: int | None) -> Indices:
    """Returns at most `limit` of `count` indices, evenly spaced, because folders list one class after another."""
    return np.unique(np.linspace(0, count - 1, min(count, limit or count)).astype(np.int64))


def _without(indices: Indices, unreadable: tuple[int, ...]) -> Indices:
    return indices[~np.isin(indices, unreadable)]
