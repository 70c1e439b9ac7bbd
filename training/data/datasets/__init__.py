"""Data sets: a loader for each, found by name in `DATASETS`, and folders of images.

Shuffling, augmenting and batching do not belong here (`training.data`): a data set gives its images by index.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from training.data.datasets import cifar10, imagenette, mnist, xo
from training.data.datasets.base import Dataset
from training.data.datasets.folder_listing import FolderListing, list_images
from training.data.datasets.image_files import InputSpec
from training.data.datasets.image_folder import FolderOptions, TestSplitSpec, evaluation_dataset, training_dataset
from training.data.datasets.memory_cache import ImageCache, cache_limit_bytes
from training.data.datasets.official_files import official_dir
from training.errors import TrainingError

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "mnist": mnist.load,
    "cifar10": cifar10.load,
    "xo": xo.load,
}
FOLDER = "folder"
"""The data set of the user's own images."""
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

    "folder" is the images in `folder`. `note` is what the user knows about these files ("a JPEG copy"); it goes
    wherever a result goes. Raises TrainingError for an unknown name, and for files that are missing or damaged.
    """
    if name in DATASETS:
        dataset = DATASETS[name](official_dir(data_dir))
    else:
        title, listing = list_dataset(name, data_dir, folder)
        if folder_options is None:
            raise TrainingError(f"{name} has images of any size: nothing here says which is wanted.")
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
    """The test set of a folder of images, for a network with these labels; all of them where it has none.

    `test_split` names the images that a run has held out where the folder has no test set. Raises TrainingError.
    """
    title, listing = list_dataset(name, data_dir, folder, min_classes=1)
    return evaluation_dataset(name, title, listing, labels or listing.labels, input_spec, test_split)


def list_dataset(
    name: str, data_dir: Path | None, folder: Path | None, min_classes: int = 2
) -> tuple[str, FolderListing]:
    """Title and files of a data set that is a folder of images of at least so many classes. Raises TrainingError."""
    if name in LISTED_DATASETS:
        title, list_files = LISTED_DATASETS[name]
        return title, list_files(official_dir(data_dir))
    if name != FOLDER:
        raise TrainingError(
            f"There is no data set called {name!r}; there are {', '.join([*DATASETS, *LISTED_DATASETS])}."
        )
    if folder is None:
        raise TrainingError("This needs a folder of images: name it with --data.")
    return f"Images of the folder {folder.resolve().name!r}", list_images(folder, min_classes)
