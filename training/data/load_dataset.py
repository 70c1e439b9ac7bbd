"""The data set that a recipe, a run or a version asks for, with its images in the form that the network needs.

Images that cannot be read are found here, before anything is trained or measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from service.model_store.manifest import Input, Preprocessing
from training.architectures import own_input
from training.data import datasets
from training.data.datasets import Wanted
from training.data.datasets.base import Dataset
from training.data.datasets.image_files import InputSpec
from training.data.datasets.image_folder import Drawn
from training.data.splits import SplitIndices, split_indices
from training.errors import TrainingError
from training.recipes.base import APPLICATION, Recipe
from training.runs.run_folder import Run

APPLICATION_INPUT = (224, 224, 3)
MARGIN = 8 / 7
"""Of the shorter side over the input where a recipe names none: 256 for 224, as the papers have it."""


@dataclass(frozen=True)
class DataOptions:
    """Where the data lie, and what to do with damaged images, in the user's words."""

    data_dir: Path | None = None
    folder: Path | None = None
    """A folder of images, in place of the recipe's data set."""
    note: str | None = None
    skip_unreadable: bool = False
    workers: int | None = None
    """Threads that read and augment; None: one a core. Their number changes no result."""


DEFAULT = DataOptions()


def for_training(recipe: Recipe, data_options: DataOptions, test_files: Sequence[str] | None = None) -> Dataset:
    """The recipe's data set, every image that the recipe uses looked at.

    `test_files` are a folder's test images where a run has recorded them. Raises TrainingError that lists those which
    cannot be read; with `data_options.skip_unreadable` they are left out instead, and stand in `origin`.
    """
    dataset = datasets.load(
        recipe.dataset, data_options.data_dir, data_options.note, data_options.folder, _wanted(recipe, test_files)
    )
    _check_channels(recipe, dataset)
    splits = split_indices(dataset, recipe)
    train = dataset.train.unreadable(np.concatenate([splits.train, splits.validation]))
    test = dataset.test.unreadable(splits.test)
    bad = [*train.values(), *test.values()]
    check_readable(bad, data_options.skip_unreadable)
    origin = (
        {**dataset.origin, "skip_unreadable": data_options.skip_unreadable, "skipped": bad} if dataset.origin else {}
    )
    left_out = {"unreadable_train": tuple(sorted(train)), "unreadable_test": tuple(sorted(test))}
    dataset = replace(dataset, origin=origin, workers=data_options.workers, **left_out)
    _check_rest(split_indices(dataset, recipe), recipe, bad)
    return dataset


def for_resuming(run: Run, data_options: DataOptions) -> Dataset:
    """The data set as the run had it. Raises TrainingError when its images have changed since."""
    recorded = run.info()["dataset"]
    origin = recorded.get("origin", {})
    data_options = replace(
        _recorded(run, data_options), skip_unreadable=origin.get("skip_unreadable", False), note=recorded["data_note"]
    )
    dataset = for_training(run.recipe(), data_options, origin.get("test_files"))
    if origin and dataset.origin["digest"] != origin["digest"]:
        where = dataset.origin["folder"]
        raise TrainingError(f"The images in {where} have changed since {run.folder} began: start a new run.")
    return dataset


def for_measuring(run: Run, data_options: DataOptions) -> Dataset:
    """The data set of a run with the run's own test images. Raises TrainingError when they are gone or damaged."""
    recorded = run.info()["dataset"]
    origin = recorded.get("origin", {})
    recipe, data_options = run.recipe(), _recorded(run, data_options)
    wanted = _wanted(recipe, origin.get("test_files"))
    note = data_options.note or recorded["data_note"]
    dataset = datasets.load(recipe.dataset, data_options.data_dir, note, data_options.folder, wanted)
    return _readable(dataset, data_options.skip_unreadable or origin.get("skip_unreadable", False))


def for_network(
    name: str | None,
    data_options: DataOptions,
    expects: Input,
    how: Preprocessing,
    labels: Sequence[str] | None,
    drawn: Drawn | None = None,
) -> Dataset:
    """A data set to measure any network on, or the images of `data_options.folder`; these fit its `labels` by name.

    Of a folder without `val/` these are all images, or those that were `drawn` for the test. Raises TrainingError
    when there is none, and for images that it cannot take.
    """
    name = datasets.FOLDER if data_options.folder else name
    if name is None:
        raise TrainingError("Nothing says what to measure on: give --dataset, or --data with a folder of images.")
    if name in datasets.DATASETS:
        return datasets.load(name, data_options.data_dir, data_options.note)
    dataset = datasets.load_to_measure(
        name, data_options.data_dir, data_options.folder, labels, InputSpec(expects, how), drawn
    )
    return _readable(replace(dataset, note=data_options.note or dataset.note), data_options.skip_unreadable)


def form_of(recipe: Recipe) -> InputSpec:
    """What a folder's images become for the recipe's network. Raises TrainingError for an unknown network."""
    is_application = recipe.architecture.startswith(APPLICATION)
    height, width, channels = APPLICATION_INPUT if is_application else own_input(recipe.architecture)
    size = Input(height=recipe.side_px or height, width=recipe.side_px or width, channels=channels)
    if recipe.resize == "squash":
        return InputSpec(size, Preprocessing())
    shorter = recipe.shorter_px or round(MARGIN * max(size.height, size.width))
    return InputSpec(size, Preprocessing(resize="shorter", shorter=shorter))


def check_readable(bad: Sequence[str], skip_unreadable: bool) -> None:
    """Raises TrainingError that lists these images, "file: reason" each, unless they are to be skipped."""
    if bad and not skip_unreadable:
        lines = "\n".join(f"  {line}" for line in bad)
        raise TrainingError(f"Images that cannot be read: {len(bad):,}. Mend them, or add --skip-unreadable:\n{lines}")


def _check_channels(recipe: Recipe, dataset: Dataset) -> None:
    for name in ("saturation", "lighting"):
        if getattr(recipe, name) and dataset.train.shape[-1] == 1:
            raise TrainingError(
                f"{name} changes colours; {dataset.name} is grey for {recipe.architecture}: set {name}=0."
            )


def _check_rest(splits: SplitIndices, recipe: Recipe, bad: list[str]) -> None:
    wanted = {"train": "to train on", "validation": "to validate on", "test": "for the test"}
    for part, purpose in wanted.items():
        if not len(getattr(splits, part)) and (part != "validation" or recipe.validation):
            raise TrainingError(f"No image is left {purpose}: {_reason(bad)}")


def _reason(bad: list[str]) -> str:
    if bad:
        return f"{len(bad):,} cannot be read, such as {bad[0]}"
    return "a class needs two or more, of which one is for the test, or a val/ folder beside train/."


def _wanted(recipe: Recipe, test_files: Sequence[str] | None) -> Wanted:
    return Wanted(form_of(recipe), recipe.test_share, recipe.seed, test_files)


def _recorded(run: Run, data_options: DataOptions) -> DataOptions:
    """The place with the folder that the run had, unless the user names another."""
    origin = run.info()["dataset"].get("origin", {})
    if run.recipe().dataset != datasets.FOLDER or data_options.folder or not origin:
        return data_options
    return replace(data_options, folder=Path(origin["folder"]))


def _readable(dataset: Dataset, skip_unreadable: bool) -> Dataset:
    """The data set, all of its test images looked at. Raises TrainingError unless damaged ones are to be skipped."""
    bad = dataset.test.unreadable(np.arange(len(dataset.test)))
    check_readable(list(bad.values()), skip_unreadable)
    return replace(dataset, test=dataset.test.without(list(bad))) if bad else dataset
