"""Data sets: one loader each, in `DATASETS` by name, and folders of images.

A data set returns images by index. Shuffling, augmenting and batching belong to `training.data`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from training.data.datasets import cifar10, imagenette, mnist, xo
from training.data.datasets.base import Dataset
from training.data.datasets.folder_listing import FolderListing, list_images
from training.data.datasets.folder_test_split import TestSplitSpec
from training.data.datasets.image_files import InputSpec
from training.data.datasets.image_folder import FolderOptions, evaluation_dataset, training_dataset
from training.data.datasets.memory_cache import ImageCache, cache_limit_bytes
from training.data.datasets.official_files import official_dir
from training.errors import TrainingError

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "mnist": mnist.load,
    "cifar10": cifar10.load,
    "xo": xo.load,
}
FOLDER = "folder"
"""Name of the data set of the user's own images."""
LISTED_DATASETS: dict[str, tuple[str, Callable[[Path | None], FolderListing]]] = {
    "imagenette": (imagenette.TITLE, imagenette.list_files),
}


def load(
    name: str,
    data_dir: Path | None = None,
    note: str | None = None,
    folder: Path | None = None,
    folder_options: FolderOptions | None = None,
) -> Dataset:
    """Loads the data set called `name` from `data_dir`, from CONVOY_DATA, or else by downloading it.

    The data set "folder" contains the images in `folder`. `note` is the user's remark about the files ("a JPEG copy");
    every result repeats it. Raises TrainingError for an unknown name, and for files that are missing or damaged.
    """
    if name in DATASETS:
        dataset = DATASETS[name](official_dir(data_dir))
    else:
        title, listing = list_dataset(name, data_dir, folder)
        if folder_options is None:
            raise TrainingError(f"{name} has images of any size, and this command does not define an input size.")
        dataset = training_dataset(name, title, listing, folder_options, ImageCache(cache_limit_bytes()))
    dataset.check_labels()
    notes = [text for text in (note, dataset.note) if text]
    return replace(dataset, note="; ".join(notes) or None)


def load_for_evaluation(
    name: str,
    data_dir: Path | None,
    folder: Path | None,
    labels: Sequence[str] | None,
    input_spec: InputSpec,
    test_split: TestSplitSpec | None = None,
) -> Dataset:
    """Loads the test set of a folder of images, or all images if it has none, for a network with these labels.

    If the folder has no test set, `test_split` selects the test images of a run. Raises TrainingError.
    """
    title, listing = list_dataset(name, data_dir, folder, min_classes=1)
    return evaluation_dataset(name, title, listing, labels or listing.labels, input_spec, test_split)


def list_dataset(
    name: str, data_dir: Path | None, folder: Path | None, min_classes: int = 2
) -> tuple[str, FolderListing]:
    """Returns title and files of a data set of image files with at least `min_classes` classes.

    Raises TrainingError.
    """
    if name in LISTED_DATASETS:
        title, list_files = LISTED_DATASETS[name]
        return title, list_files(official_dir(data_dir))
    if name != FOLDER:
        raise TrainingError(
            f"There is no data set called {name!r}; the data sets are {', '.join([*DATASETS, *LISTED_DATASETS])}."
        )
    if folder is None:
        raise TrainingError("This command needs a folder of images: specify it with --data.")
    return f"Images of the folder {folder.resolve().name!r}", list_images(folder, min_classes)
