"""The pictures with which a smaller precision is made, on which it is accepted, and on which it is measured at last."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.repository import VersionFolder
from training import datasets
from training.batches import portion
from training.datasets.base import Dataset
from training.datasets.folder import Wanted
from training.errors import TrainingError
from training.evaluate import Scores, score
from training.pictures import Form, prepare_file
from training.recipes import RECIPES
from training.service_path import ServicePath

TEST_SHARE = 0.2
"""Of a folder of pictures without a test set."""
HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 5000
"""Of training pictures, where no recipe tells which ones were held out."""
FEWEST_HELD_OUT = 200

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """`held_out` are not among those that calibrate, nor, where the recipe is known, those that the network learnt."""

    dataset: Dataset
    calibrating: Indices
    held_out: Indices

    def prepared(self, form: Form) -> NDArray[np.uint8]:
        """The calibrating pictures as the service gives them to a graph."""
        train = self.dataset.train
        files = (train.encoded(int(index)) for index in self.calibrating)
        return np.stack([prepare_file(encoded, form.input, form.preprocessing) for encoded in files])

    def held_out_scores(self, path: ServicePath) -> Scores:
        train = self.dataset.train
        return score(path.probabilities(_files(train, self.held_out)), train.labels[self.held_out])


def pictures_for(
    version: VersionFolder, name: str | None, data_dir: Path | None, folder: Path | None, count: int
) -> Pictures:
    """The data set of a version, or the one named, or a folder's pictures; `count` of them calibrate.

    Raises TrainingError where there is none, it has other classes, or too few pictures.
    """
    provenance = version.manifest.provenance
    named = name or ("folder" if folder is not None else provenance.dataset)
    if named is None:
        raise TrainingError("The manifest names no data set: give --dataset, or --data FOLDER with training pictures.")
    form = Form(version.manifest.input, version.manifest.preprocessing)
    seed = provenance.seed or 0
    dataset = datasets.load(named, data_dir, None, folder, Wanted(form, TEST_SHARE, seed))
    if dataset.labels != version.labels:
        raise TrainingError(f"{named} has other classes than the network: {_difference(dataset, version)}.")
    held_out, rest = _divided(dataset, provenance.recipe, seed)
    if len(held_out) < FEWEST_HELD_OUT or not len(rest):
        raise TrainingError(
            f"{named} has {len(dataset.train):,} training pictures; at least {5 * FEWEST_HELD_OUT:,} are needed to "
            "hold some out."
        )
    return Pictures(dataset, rest[:count], held_out)


def _divided(dataset: Dataset, recipe_name: str | None, seed: int) -> tuple[Indices, Indices]:
    """Held out and the rest, as the recipe's run divided them, else by chance."""
    recipe = RECIPES.get(recipe_name or "")
    if recipe is not None and recipe.dataset == dataset.name and recipe.validation >= FEWEST_HELD_OUT:
        portions = portion(dataset, replace(recipe, seed=seed))
        return portions.validation, portions.train
    shuffled = np.random.default_rng(seed).permutation(len(dataset.train))
    cut = min(MOST_HELD_OUT, int(HELD_OUT_SHARE * len(shuffled)))
    return shuffled[:cut], shuffled[cut:]


def _files(split, indices: Indices) -> Iterator[bytes]:
    return (split.encoded(int(index)) for index in indices)


def _difference(dataset: Dataset, version: VersionFolder) -> str:
    if len(dataset.labels) != len(version.labels):
        return f"{len(dataset.labels)} in place of {len(version.labels)}"
    pairs = zip(dataset.labels, version.labels, strict=True)
    theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
    return f"{theirs!r} in place of {ours!r}"
