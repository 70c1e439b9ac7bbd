"""Selects the images for calibrating, accepting and testing a reduced-precision graph."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Manifest, Provenance
from service.model_store.repository import VersionFolder
from training.data import datasets
from training.data.datasets import FOLDER
from training.data.datasets.base import Dataset, Split
from training.data.datasets.image_files import InputSpec, prepare_image_file
from training.data.datasets.image_folder import FolderOptions
from training.data.load_dataset import DataOptions, check_readable
from training.errors import TrainingError
from training.export.published_split import is_same_data, published_split, split_seed_of
from training.export.serving_pipeline import ServingPipeline

DEFAULT_TEST_FRACTION = 0.2
"""Fraction of the images that become test images in a folder without a test set."""
HELD_OUT_FRACTION, MAX_HELD_OUT = 0.2, 5000
"""Fraction of the training images to hold out if the run's held-out images are unknown or too few."""
MIN_HELD_OUT = 200

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class CalibrationData:
    """A data set with the indices of the training images for calibrating a graph and of the held-out images for
    accepting it.

    `held_out` and `calibration` are disjoint. `has_training_split` states whether the network was trained without the
    held-out images. `has_published_test` states whether the version's test accuracy was measured on the test images of
    `dataset`.
    """

    dataset: Dataset
    calibration: Indices
    held_out: Indices
    has_training_split: bool
    has_published_test: bool

    def prepare_calibration(self, input_spec: InputSpec) -> NDArray[np.uint8]:
        """Returns the calibration images in the form that the service passes to a graph."""
        train = self.dataset.train
        files = _encoded_images(train, self.calibration)
        return np.stack([prepare_image_file(encoded, input_spec.input, input_spec.preprocessing) for encoded in files])

    @property
    def held_out_labels(self) -> NDArray[np.int64]:
        return self.dataset.train.labels[self.held_out]

    def held_out_probabilities(self, pipeline: ServingPipeline) -> NDArray[np.float32]:
        """Returns the probabilities (n, classes) of the held-out images."""
        return pipeline.probabilities(_encoded_images(self.dataset.train, self.held_out))


def load_calibration_data(
    version: VersionFolder, name: str | None, data_options: DataOptions, count: int
) -> CalibrationData:
    """Loads the data set `name`, a folder's images, or the version's own data set. `count` images are for calibration.

    Raises TrainingError if there is no data set, or if it has other classes or too few images. Unreadable images raise
    TrainingError as well, unless `data_options.skip_unreadable` is set.
    """
    provenance = version.manifest.provenance
    dataset_name = name or (FOLDER if data_options.folder is not None else provenance.dataset)
    if dataset_name is None:
        raise TrainingError("The manifest contains no data set: use --dataset, or --data FOLDER with training images.")
    dataset = datasets.load(
        dataset_name, data_options.data_dir, data_options.note, data_options.folder, _folder_options(version.manifest)
    )
    if dataset.labels != version.labels:
        raise TrainingError(
            f"The classes of {dataset_name} differ from those of the network: {_label_difference(dataset, version)}."
        )
    held_out, remaining, has_training_split = _split(dataset, provenance)
    if len(held_out) < MIN_HELD_OUT or not len(remaining):
        raise TrainingError(
            f"{dataset_name} has {len(dataset.train):,} training images; at least {5 * MIN_HELD_OUT:,} are needed to "
            "hold some out."
        )
    has_published_test = is_same_data(dataset, provenance)
    return _without_unreadable(
        CalibrationData(dataset, remaining[:count], held_out, has_training_split, has_published_test),
        data_options.skip_unreadable,
    )


def _folder_options(manifest: Manifest) -> FolderOptions:
    """Returns the options for reading a folder for a version: the input of its graph, and the test images of its
    run."""
    division = manifest.provenance.division
    test_share = (division and division.test_share) or DEFAULT_TEST_FRACTION
    return FolderOptions(
        InputSpec(manifest.input, manifest.preprocessing),
        test_share,
        split_seed_of(manifest.provenance) or 0,
        split_by_path=division is not None and division.by_path,
    )


def _split(dataset: Dataset, provenance: Provenance) -> tuple[Indices, Indices, bool]:
    """Returns held-out images, other images, and whether this is the version's split instead of a random one."""
    if splits := published_split(dataset, provenance):
        # Runs without held-out images have validation images, which may have decided which epoch was kept.
        held_out = splits.holdout if len(splits.holdout) else splits.validation
        if len(held_out) >= MIN_HELD_OUT:
            return held_out, splits.train, True
    shuffled = np.random.default_rng(provenance.seed or 0).permutation(len(dataset.train))
    held_out_count = min(MAX_HELD_OUT, int(HELD_OUT_FRACTION * len(shuffled)))
    return shuffled[:held_out_count], shuffled[held_out_count:], False


def _without_unreadable(data: CalibrationData, skip_unreadable: bool) -> CalibrationData:
    """Checks all images and returns the readable ones. Raises TrainingError for unreadable images unless they may be
    skipped."""
    dataset = data.dataset
    unreadable_train = dataset.train.find_unreadable(np.concatenate([data.held_out, data.calibration]))
    unreadable_test = dataset.test.find_unreadable(np.arange(len(dataset.test)))
    check_readable([*unreadable_train.values(), *unreadable_test.values()], skip_unreadable)
    unreadable = list(unreadable_train)
    return replace(
        data,
        dataset=replace(dataset, test=dataset.test.without(list(unreadable_test))) if unreadable_test else dataset,
        calibration=data.calibration[~np.isin(data.calibration, unreadable)],
        held_out=data.held_out[~np.isin(data.held_out, unreadable)],
    )


def _encoded_images(split: Split, indices: Indices) -> Iterator[bytes]:
    return (split.encoded_image(int(index)) for index in indices)


def _label_difference(dataset: Dataset, version: VersionFolder) -> str:
    if len(dataset.labels) != len(version.labels):
        return f"{len(dataset.labels)} instead of {len(version.labels)}"
    pairs = zip(dataset.labels, version.labels, strict=True)
    actual, expected = next(pair for pair in pairs if pair[0] != pair[1])
    return f"{actual!r} instead of {expected!r}"
