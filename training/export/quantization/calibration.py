"""The images with which a smaller precision is made, on which it is accepted, and on which it is measured at last."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Manifest, Provenance
from service.model_store.repository import VersionFolder
from training.data import datasets
from training.data.datasets import FOLDER
from training.data.datasets.base import Dataset, Split
from training.data.datasets.image_files import InputSpec, prepare_file
from training.data.datasets.image_folder import Wanted, division_digest
from training.data.load_dataset import DataOptions, check_readable
from training.data.splits import portion
from training.errors import TrainingError
from training.export.serving_pipeline import ServingPipeline
from training.fit.scores import Scores, score
from training.recipes import RECIPES
from training.recipes.base import Recipe

TEST_SHARE = 0.2
"""Of a folder of images without a test set."""
HELD_OUT_SHARE, MOST_HELD_OUT = 0.2, 5000
"""Of training images, where nothing tells which ones the run held out, or these are too few."""
FEWEST_HELD_OUT = 200

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """`held_out` are not among those that calibrate, nor, where `divided_as_trained`, those that the network learnt.

    `tested_as_published` is whether the data set's test images are those of the version's test accuracy.
    """

    dataset: Dataset
    calibrating: Indices
    held_out: Indices
    divided_as_trained: bool
    tested_as_published: bool

    def prepared(self, form: InputSpec) -> NDArray[np.uint8]:
        """The calibrating images as the service gives them to a graph."""
        train = self.dataset.train
        files = (train.encoded(int(index)) for index in self.calibrating)
        return np.stack([prepare_file(encoded, form.input, form.preprocessing) for encoded in files])

    def held_out_scores(self, path: ServingPipeline) -> Scores:
        train = self.dataset.train
        return score(path.probabilities(_files(train, self.held_out)), train.labels[self.held_out])


def images_for(version: VersionFolder, name: str | None, data_options: DataOptions, count: int) -> Images:
    """The data set of a version, or the one named, or a folder's images; `count` of them calibrate.

    Raises TrainingError where there is none, it has other classes, or too few images, and for those that cannot be
    read: it lists them, or leaves them out where `data_options.skip_unreadable`.
    """
    provenance = version.manifest.provenance
    named = name or (FOLDER if data_options.folder is not None else provenance.dataset)
    if named is None:
        raise TrainingError("The manifest names no data set: give --dataset, or --data FOLDER with training images.")
    dataset = datasets.load(
        named, data_options.data_dir, data_options.note, data_options.folder, _wanted(version.manifest)
    )
    if dataset.labels != version.labels:
        raise TrainingError(f"{named} has other classes than the network: {_difference(dataset, version)}.")
    held_out, rest, divided_as_trained = _divided(dataset, provenance)
    if len(held_out) < FEWEST_HELD_OUT or not len(rest):
        raise TrainingError(
            f"{named} has {len(dataset.train):,} training images; at least {5 * FEWEST_HELD_OUT:,} are needed to "
            "hold some out."
        )
    tested_as_published = _is_the_same(dataset, provenance)
    return _readable(
        Images(dataset, rest[:count], held_out, divided_as_trained, tested_as_published), data_options.skip_unreadable
    )


def _wanted(manifest: Manifest) -> Wanted:
    """The images in the form in which the version takes them, and the test images of its run."""
    division = manifest.provenance.division
    test_share = (division and division.test_share) or TEST_SHARE
    return Wanted(InputSpec(manifest.input, manifest.preprocessing), test_share, manifest.provenance.seed or 0)


def _divided(dataset: Dataset, provenance: Provenance) -> tuple[Indices, Indices, bool]:
    """Held out and the rest; and whether so by the version's run, or else by chance."""
    if recipe := _recipe_of(dataset, provenance):
        portions = portion(dataset, recipe)
        if len(portions.validation) >= FEWEST_HELD_OUT:
            return portions.validation, portions.train, True
    shuffled = np.random.default_rng(provenance.seed or 0).permutation(len(dataset.train))
    cut = min(MOST_HELD_OUT, int(HELD_OUT_SHARE * len(shuffled)))
    return shuffled[:cut], shuffled[cut:], False


def _recipe_of(dataset: Dataset, provenance: Provenance) -> Recipe | None:
    """What divided the images when the network learnt from them; None where these are others, or nothing tells.

    A version without `division` was made by an earlier release: its run is taken to have changed nothing in its recipe.
    """
    published = RECIPES.get(provenance.recipe or "")
    told = provenance.division or (published if published and published.dataset == dataset.name else None)
    if told is None or not _is_the_same(dataset, provenance):
        return None
    settings = {"validation": told.validation, "limit": told.limit, "seed": provenance.seed or 0}
    return Recipe(name=dataset.name, dataset=dataset.name, architecture=provenance.architecture or "", **settings)


def _is_the_same(dataset: Dataset, provenance: Provenance) -> bool:
    """Whether these are the images of the version's run, the same of them for the test."""
    if dataset.name != provenance.dataset:
        return False
    recorded = provenance.division and provenance.division.digest
    return dataset.name != FOLDER if recorded is None else recorded == division_digest(dataset.origin)


def _readable(images: Images, skip_unreadable: bool) -> Images:
    """The images that can be read, all of them looked at. Raises TrainingError unless others are to be skipped."""
    dataset = images.dataset
    bad_train = dataset.train.unreadable(np.concatenate([images.held_out, images.calibrating]))
    bad_test = dataset.test.unreadable(np.arange(len(dataset.test)))
    check_readable([*bad_train.values(), *bad_test.values()], skip_unreadable)
    bad = list(bad_train)
    return replace(
        images,
        dataset=replace(dataset, test=dataset.test.without(list(bad_test))) if bad_test else dataset,
        calibrating=images.calibrating[~np.isin(images.calibrating, bad)],
        held_out=images.held_out[~np.isin(images.held_out, bad)],
    )


def _files(split: Split, indices: Indices) -> Iterator[bytes]:
    return (split.encoded(int(index)) for index in indices)


def _difference(dataset: Dataset, version: VersionFolder) -> str:
    if len(dataset.labels) != len(version.labels):
        return f"{len(dataset.labels)} in place of {len(version.labels)}"
    pairs = zip(dataset.labels, version.labels, strict=True)
    theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
    return f"{theirs!r} in place of {ours!r}"
