"""Lists the image files of a folder with their classes, which are the names of its subfolders. Images are not opened.

There are two layouts: one folder of images per class, or, as in ImageNet, `train` and `val` with such folders.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError, system_error

LAYOUT = "one folder of images for each class, or train/ and val/ with such folders in each"
TRAIN_FOLDER, TEST_FOLDERS = "train", ("val", "test")
LABELS_FILES = ("labels.txt", "LOC_synset_mapping.txt")
IGNORED_FILES = {"Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class LabeledFiles:
    """Image files as paths relative to the data set's folder, with their classes, int64 (files,)."""

    paths: Sequence[str]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: NDArray[np.int64]) -> "LabeledFiles":
        return LabeledFiles([self.paths[index] for index in indices], self.classes[indices])


@dataclass(frozen=True)
class FolderListing:
    """The files of a folder. `test` is None if the folder has no `val`; the test set is then split off `train`."""

    folder: Path
    labels: tuple[str, ...]
    train: LabeledFiles
    test: LabeledFiles | None

    def digest(self) -> str:
        """The SHA-256 over names and sizes of all files."""
        sha256 = hashlib.sha256()
        for files in (self.train, self.test):
            for path in () if files is None else files.paths:
                sha256.update(f"{path_and_size(self.folder, path)}\0".encode())
        return sha256.hexdigest()


def path_and_size(folder: Path, path: str) -> str:
    """Returns the text that identifies a file in digests and fingerprints."""
    return f"{path}\0{(folder / path).stat().st_size}"


def list_images(folder: Path, min_classes: int = 2) -> FolderListing:
    """Lists a folder in one of the two layouts, with the classes in the order of their folders' names.

    Labels are the folders' names, or the labels in a `labels.txt` next to the folders, with one folder per line
    ("n01440764 tench"). Raises TrainingError for another layout and for fewer than `min_classes` classes.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder; expected: {LAYOUT}.")
    test = _find_test_folder(folder)
    if not (folder / TRAIN_FOLDER).is_dir() or not (test or _subfolder_names(folder) == [TRAIN_FOLDER]):
        return _with_labels_file(FolderListing(folder, *_list_classes(folder, "", min_classes), None))
    labels, train = _list_classes(folder, TRAIN_FOLDER, min_classes)
    if test is None:
        return _with_labels_file(FolderListing(folder, labels, train, None))
    return _with_labels_file(FolderListing(folder, labels, train, _list_test_files(folder, test, labels)))


def _find_test_folder(folder: Path) -> str | None:
    """Returns the name of the test set's folder if `folder` has ImageNet's layout, else None."""
    names = _subfolder_names(folder)
    if not set(names) <= {TRAIN_FOLDER, *TEST_FOLDERS}:
        return None
    return next((name for name in TEST_FOLDERS if name in names), None)


def _list_test_files(folder: Path, test: str, labels: tuple[str, ...]) -> LabeledFiles:
    test_labels, files = _list_classes(folder, test, 1)
    if unknown := sorted(set(test_labels) - set(labels)):
        raise TrainingError(f"{folder / test} has classes that {folder / TRAIN_FOLDER} lacks: {', '.join(unknown)}.")
    class_numbers = np.array([labels.index(label) for label in test_labels])
    return replace(files, classes=class_numbers[files.classes])


def _list_classes(folder: Path, part: str, min_classes: int) -> tuple[tuple[str, ...], LabeledFiles]:
    names = _subfolder_names(folder / part)
    if len(names) < min_classes:
        found = f"only one folder of images ({names[0]!r})" if names else "no folders of images"
        raise TrainingError(f"{folder / part} has {found}; at least {min_classes} are needed: {LAYOUT}.")
    files_by_class = [sorted(_walk_files(folder, os.path.join(part, name))) for name in names]
    if empty := [name for name, files in zip(names, files_by_class, strict=True) if not files]:
        names_of_empty = ", ".join(empty)
        raise TrainingError(
            f"{folder / part} has classes without images: {names_of_empty}. Add images, or remove these folders."
        )
    classes = np.repeat(np.arange(len(names)), [len(files) for files in files_by_class])
    return tuple(names), LabeledFiles([path for files in files_by_class for path in files], classes)


def _subfolder_names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise system_error(f"{folder} cannot be read: {error.strerror}.", error) from error


def _walk_files(folder: Path, part: str) -> Iterator[str]:
    for directory, _, names in os.walk(folder / part, followlinks=True):
        relative = os.path.relpath(directory, folder)
        for name in names:
            if not name.startswith(".") and name not in IGNORED_FILES:
                yield os.path.join(relative, name)


def _with_labels_file(listing: FolderListing) -> FolderListing:
    path = next((listing.folder / name for name in LABELS_FILES if (listing.folder / name).is_file()), None)
    if path is None:
        return listing
    try:
        pairs = [
            line.strip().split(maxsplit=1) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    names = {pair[0]: pair[-1] for pair in pairs}
    if missing := [name for name in listing.labels if name not in names]:
        raise TrainingError(f"{path} does not name {', '.join(missing)}; write a line 'folder label' for each class.")
    return replace(listing, labels=tuple(names[name] for name in listing.labels))
