"""Which image files a folder holds, and of which class each is, by the names of its folders. Opens no image.

Two layouts: one folder of images a class; or, as ImageNet has it, `train` and `val` with such folders in each.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

LAYOUT = "one folder of images for each class, or train/ and val/ with such folders in each"
TRAIN, TESTS = "train", ("val", "test")
LABELS_FILES = ("labels.txt", "LOC_synset_mapping.txt")
LITTER = {"Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Files:
    """Image files, their paths relative to the data set's folder, with their classes, int64 (files,)."""

    paths: Sequence[str]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, indices: NDArray[np.int64]) -> "Files":
        return Files([self.paths[index] for index in indices], self.classes[indices])


@dataclass(frozen=True)
class Listing:
    """The files of a folder. `test` is None where the folder has no `val`: then it is split off `train`."""

    folder: Path
    labels: tuple[str, ...]
    train: Files
    test: Files | None

    def digest(self) -> str:
        """SHA-256 over the names and sizes of all files: other images, another digest."""
        sha256 = hashlib.sha256()
        for files in (self.train, self.test):
            for path in () if files is None else files.paths:
                sha256.update(f"{path}\0{(self.folder / path).stat().st_size}\0".encode())
        return sha256.hexdigest()


def list_images(folder: Path, least: int = 2) -> Listing:
    """All files of a folder in one of the two layouts, the classes in the order of their folders' names.

    Labels are the folders' names, or what a `labels.txt` beside them says ("n01440764 tench", one folder a line).
    Raises TrainingError when the layout is another one, or there are less than `least` classes, naming what is wrong.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder; expected is {LAYOUT}.")
    test = _test_folder(folder)
    if not (folder / TRAIN).is_dir() or not (test or _names(folder) == [TRAIN]):
        return _labelled(Listing(folder, *_listed(folder, "", least), None))
    labels, train = _listed(folder, TRAIN, least)
    if test is None:
        return _labelled(Listing(folder, labels, train, None))
    return _labelled(Listing(folder, labels, train, _test_files(folder, test, labels)))


def _test_folder(folder: Path) -> str | None:
    """Which folder holds the test set, where all there is are `train` and its like."""
    names = _names(folder)
    if not set(names) <= {TRAIN, *TESTS}:
        return None
    return next((name for name in TESTS if name in names), None)


def _test_files(folder: Path, test: str, labels: tuple[str, ...]) -> Files:
    found, files = _listed(folder, test, 1)
    if strange := sorted(set(found) - set(labels)):
        raise TrainingError(f"{folder / test} has classes that {folder / TRAIN} lacks: {', '.join(strange)}.")
    number = np.array([labels.index(label) for label in found])
    return replace(files, classes=number[files.classes])


def _listed(folder: Path, part: str, least: int) -> tuple[tuple[str, ...], Files]:
    names = _names(folder / part)
    if len(names) < least:
        found = f"only {names[0]!r}" if names else "none"
        raise TrainingError(f"{folder / part} has {found} of at least {least} folders of images: {LAYOUT}.")
    by_class = [sorted(_files_below(folder, os.path.join(part, name))) for name in names]
    if empty := [name for name, files in zip(names, by_class, strict=True) if not files]:
        raise TrainingError(f"{folder / part} has classes without images: {', '.join(empty)}.")
    classes = np.repeat(np.arange(len(names)), [len(files) for files in by_class])
    return tuple(names), Files([path for files in by_class for path in files], classes)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise TrainingError(f"{folder} cannot be read: {error.strerror}.") from error


def _files_below(folder: Path, part: str) -> Iterator[str]:
    for where, _, names in os.walk(folder / part, followlinks=True):
        inside = os.path.relpath(where, folder)
        for name in names:
            if not name.startswith(".") and name not in LITTER:
                yield os.path.join(inside, name)


def _labelled(listing: Listing) -> Listing:
    path = next((listing.folder / name for name in LABELS_FILES if (listing.folder / name).is_file()), None)
    if path is None:
        return listing
    try:
        pairs = [
            line.strip().split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    names = {pair[0]: pair[-1] for pair in pairs}
    if missing := [name for name in listing.labels if name not in names]:
        raise TrainingError(f"{path} does not name {', '.join(missing)}; write a line 'folder label' for each class.")
    return replace(listing, labels=tuple(names[name] for name in listing.labels))
