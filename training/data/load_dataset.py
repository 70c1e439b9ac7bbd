"""Loads the data set of a recipe, a run or a version, with images in the shape that the network needs.

Unreadable images are found here, before training or evaluation starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.model_store.manifest import Channels, Input, Preprocessing
from training.architectures import default_input_shape
from training.data import datasets
from training.data.datasets.base import Dataset
from training.data.datasets.folder_test_split import TestSplitSpec
from training.data.datasets.image_files import InputSpec
from training.data.datasets.image_folder import FolderOptions
from training.data.splits import SplitIndices, split_indices
from training.errors import TrainingError
from training.recipes.base import APPLICATION_PREFIX, Recipe
from training.runs.run_folder import Run

APPLICATION_INPUT: tuple[int, int, Channels] = (224, 224, 3)
RESIZE_MARGIN = 8 / 7
"""Default ratio of the shorter side to the input's side: 256 for 224, as in the papers."""


@dataclass(frozen=True)
class DataOptions:
    """The user's options: the location of the data and the treatment of damaged images."""

    data_dir: Path | None = None
    folder: Path | None = None
    """A folder of images that replaces the recipe's data set."""
    note: str | None = None
    skip_unreadable: bool = False
    workers: int | None = None
    """Threads that read and augment images; None: one per core. The result does not depend on it."""


DEFAULT_OPTIONS = DataOptions()


def for_training(
    recipe: Recipe, data_options: DataOptions, recorded_origin: Mapping[str, Any] | None = None
) -> Dataset:
    """Loads the recipe's data set and checks that every image of it can be read.

    `recorded_origin` is the record of an earlier run of the same folder, whose split is kept. Raises a TrainingError
    that lists the unreadable images. With `data_options.skip_unreadable` they are skipped and recorded in `origin`.
    """
    dataset = datasets.load(
        recipe.dataset,
        data_options.data_dir,
        data_options.note,
        data_options.folder,
        folder_options_for(recipe, recorded_origin),
    )
    _check_channels(recipe, dataset)
    splits = split_indices(dataset, recipe)
    train = dataset.train.find_unreadable(np.concatenate([splits.train, splits.validation, splits.holdout]))
    test = dataset.test.find_unreadable(splits.test)
    unreadable = [*train.values(), *test.values()]
    check_readable(unreadable, data_options.skip_unreadable)
    origin = (
        {**dataset.origin, "skip_unreadable": data_options.skip_unreadable, "skipped": unreadable}
        if dataset.origin
        else {}
    )
    dataset = replace(
        dataset,
        origin=origin,
        workers=data_options.workers,
        unreadable_train=tuple(sorted(train)),
        unreadable_test=tuple(sorted(test)),
    )
    splits = split_indices(dataset, recipe)
    _check_not_empty(splits, recipe, unreadable)
    _check_classes(recipe, dataset, splits)
    return dataset


def for_resuming(run: Run, data_options: DataOptions) -> Dataset:
    """Loads the data set of a run. Raises TrainingError if its images have changed since the run began."""
    dataset_info = run.info()["dataset"]
    origin = dataset_info.get("origin", {})
    data_options = replace(
        _with_recorded_folder(run, data_options),
        skip_unreadable=origin.get("skip_unreadable", False),
        note=dataset_info["data_note"],
    )
    dataset = for_training(run.recipe(), data_options, origin)
    if origin and dataset.origin["digest"] != origin["digest"]:
        folder = dataset.origin["folder"]
        raise TrainingError(f"The images in {folder} have changed since {run.folder} began: start a new run.")
    return dataset


def for_evaluation(run: Run, data_options: DataOptions) -> Dataset:
    """Loads the data set with the test images of a run. Raises TrainingError if they are missing or damaged."""
    dataset_info = run.info()["dataset"]
    origin = dataset_info.get("origin", {})
    recipe, data_options = run.recipe(), _with_recorded_folder(run, data_options)
    folder_options = folder_options_for(recipe, origin)
    note = data_options.note or dataset_info["data_note"]
    dataset = datasets.load(recipe.dataset, data_options.data_dir, note, data_options.folder, folder_options)
    return _check_test_images(dataset, data_options.skip_unreadable or origin.get("skip_unreadable", False))


def for_network(
    name: str | None,
    data_options: DataOptions,
    model_input: Input,
    preprocessing: Preprocessing,
    labels: Sequence[str] | None,
    test_split: TestSplitSpec | None = None,
) -> Dataset:
    """Loads a data set, or the images of `data_options.folder`, for measuring any network.

    The classes of a folder are matched to `labels` by name. A folder without `val/` contributes all images, or the
    images that `test_split` selects. Raises TrainingError if there is no data set, and for images that do not fit the
    network.
    """
    name = datasets.FOLDER if data_options.folder else name
    if name is None:
        raise TrainingError(
            "No images to measure on: specify a data set with --dataset, or a folder of images with --data."
        )
    if name in datasets.DATASETS:
        return datasets.load(name, data_options.data_dir, data_options.note)
    dataset = datasets.load_for_evaluation(
        name, data_options.data_dir, data_options.folder, labels, InputSpec(model_input, preprocessing), test_split
    )
    return _check_test_images(replace(dataset, note=data_options.note or dataset.note), data_options.skip_unreadable)


def input_spec_for(recipe: Recipe) -> InputSpec:
    """Returns the input of the recipe's network for a folder of images. Raises TrainingError for an unknown network."""
    is_application = recipe.architecture.startswith(APPLICATION_PREFIX)
    height, width, channels = APPLICATION_INPUT if is_application else default_input_shape(recipe.architecture)
    size = Input(height=recipe.side_px or height, width=recipe.side_px or width, channels=channels)
    if recipe.resize == "squash":
        return InputSpec(size, Preprocessing(jpeg_scale=True))
    shorter = recipe.shorter_px or round(RESIZE_MARGIN * max(size.height, size.width))
    return InputSpec(size, Preprocessing(resize="shorter", shorter=shorter, jpeg_scale=True))


def check_readable(unreadable: Sequence[str], skip_unreadable: bool) -> None:
    """Raises a TrainingError that lists the images as "file: reason", unless they may be skipped."""
    if unreadable and not skip_unreadable:
        lines = "\n".join(f"  {line}" for line in unreadable)
        advice = "Repair or remove them, or add --skip-unreadable"
        raise TrainingError(f"Images that cannot be read: {len(unreadable):,}. {advice}:\n{lines}")


def _check_channels(recipe: Recipe, dataset: Dataset) -> None:
    for name in ("saturation", "lighting"):
        if getattr(recipe, name) and dataset.train.shape[-1] == 1:
            raise TrainingError(
                f"{name} changes colors, but {recipe.architecture} reads {dataset.name} as gray images: set {name}=0."
            )


def _check_not_empty(splits: SplitIndices, recipe: Recipe, unreadable: list[str]) -> None:
    purposes = {
        "train": "to train on",
        "validation": "to validate on",
        "holdout": "to hold out",
        "test": "for the test",
    }
    for part, purpose in purposes.items():
        if not len(getattr(splits, part)) and getattr(recipe, part, True):
            raise TrainingError(f"No image is left {purpose}: {_why_empty(unreadable)}")


def _check_classes(recipe: Recipe, dataset: Dataset, splits: SplitIndices) -> None:
    if recipe.class_weight == "none" and not recipe.balanced_sampling:
        return
    counts = np.bincount(dataset.train.labels[splits.train], minlength=len(dataset.labels))
    if missing := [label for label, count in zip(dataset.labels, counts, strict=True) if not count]:
        field = "balanced_sampling" if recipe.balanced_sampling else "class_weight=auto"
        raise TrainingError(f"{field} needs a training image of every class; none is left of {', '.join(missing)}.")


def _why_empty(unreadable: list[str]) -> str:
    if unreadable:
        return f"{len(unreadable):,} cannot be read, such as {unreadable[0]}"
    return "a class needs at least two images, one of them for the test, or a val/ folder next to train/."


def folder_options_for(recipe: Recipe, recorded_origin: Mapping[str, Any] | None) -> FolderOptions:
    """Returns the options of a new run (`recorded_origin` None), or of a run that has recorded its split."""
    default_origin = {"split_by_path": recipe.dataset == datasets.FOLDER}
    recorded: Mapping[str, Any] = default_origin if recorded_origin is None else recorded_origin
    return FolderOptions(
        input_spec_for(recipe),
        recipe.test_share,
        recipe.effective_split_seed,
        recorded.get("test_files"),
        recipe.crop_area[0] if recipe.crop_area else 1.0,
        recorded.get("split_by_path", False),
    )


def _with_recorded_folder(run: Run, data_options: DataOptions) -> DataOptions:
    """Returns the options with the run's folder, unless the user specifies another folder."""
    origin = run.info()["dataset"].get("origin", {})
    if run.recipe().dataset != datasets.FOLDER or data_options.folder or not origin:
        return data_options
    return replace(data_options, folder=Path(origin["folder"]))


def _check_test_images(dataset: Dataset, skip_unreadable: bool) -> Dataset:
    """Checks all test images. Raises TrainingError for damaged ones, or returns the data set without them."""
    unreadable = dataset.test.find_unreadable(np.arange(len(dataset.test)))
    check_readable(list(unreadable.values()), skip_unreadable)
    return replace(dataset, test=dataset.test.without(list(unreadable))) if unreadable else dataset
