"""Images in a folder of class folders: any number, sizes and formats, decoded when they are asked for.

What a network is evaluated on comes through the service's decoding and preprocessing; what it trains on in random
parts is cut from the same decoded images, first scaled down where they are far larger than the network's input.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ConvoyError
from service.hardware import usable_cores
from service.imaging.decode import decode
from service.imaging.preprocess import preprocess
from training.data.datasets.base import Dataset
from training.data.datasets.cache import ImageCache
from training.data.datasets.folder_listing import Files, Listing
from training.data.datasets.image_files import MAX_PIXELS, Boxes, InputSpec, Pixels, reduced, scaled_part
from training.errors import TrainingError

KEPT_SCALE = 2
"""Random parts are cut from images of at most so many times the input's longer side (on their shorter one)."""
AT_ONCE = 1000

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Wanted:
    """How a folder's images are to be given, and what is the test set where the folder has none by itself.

    That is `test_files` where an earlier run has recorded them, else about `test_share` of each class, drawn by `seed`.
    """

    form: InputSpec
    test_share: float
    seed: int
    test_files: Sequence[str] | None = None


@dataclass(frozen=True)
class Drawn:
    """Which part of a folder a run has kept for the test, by `split_off`."""

    test_share: float
    seed: int


class FolderSplit:
    """Image files with their classes. The cache changes nothing but how long a second look takes."""

    def __init__(self, folder: Path, files: Files, form: InputSpec, cache: ImageCache) -> None:
        self._folder = folder
        self._files = files
        self._form = form
        self._cache = cache

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._form.input.shape

    @property
    def labels(self) -> Indices:
        return self._files.classes

    def __len__(self) -> int:
        return len(self._files)

    def read_images(self, indices: Indices) -> Pixels:
        return np.stack([self._whole(self._files.paths[index]) for index in indices])

    def parts(self, indices: Indices, boxes: Boxes) -> Pixels:
        height, width, _ = self.shape
        parts = []
        for i, index in enumerate(indices):
            pixels = self._kept(self._files.paths[index])
            parts.append(scaled_part(pixels, boxes(i, pixels.shape[1], pixels.shape[0]), height, width))
        return np.stack(parts)

    def encoded(self, index: int) -> bytes:
        return self._read(self._files.paths[index])

    def unreadable(self, indices: Indices) -> Mapping[int, str]:
        found = {}
        with ThreadPoolExecutor(usable_cores()) as threads:
            for start in range(0, len(indices), AT_ONCE):  # a million futures would take gigabytes
                some = indices[start : start + AT_ONCE]
                reasons = threads.map(self._complaint, some)
                found |= {int(index): reason for index, reason in zip(some, reasons, strict=True) if reason}
        return found

    def without(self, indices: Sequence[int]) -> "FolderSplit":
        """The split without these images."""
        kept = self._files.at(np.setdiff1d(np.arange(len(self)), indices))
        return FolderSplit(self._folder, kept, self._form, self._cache)

    def _complaint(self, index: int) -> str | None:
        try:
            self._decoded(self._files.paths[index])
        except TrainingError as error:
            return str(error)
        return None

    def _whole(self, path: str) -> Pixels:
        prepared = partial(preprocess, target=self._form.input, preprocessing=self._form.preprocessing)
        return self._cache.get(("whole", path), lambda: prepared(self._decoded(path)))

    def _kept(self, path: str) -> Pixels:
        shorter = KEPT_SCALE * max(self.shape[:2])
        return self._cache.get(("kept", path), lambda: reduced(self._decoded(path), shorter))

    def _decoded(self, path: str) -> Pixels:
        try:
            return decode(self._read(path), self._form.input.channels, self._form.preprocessing.background, MAX_PIXELS)
        except ConvoyError as error:
            raise TrainingError(f"{path}: {error.message}") from error

    def _read(self, path: str) -> bytes:
        try:
            return (self._folder / path).read_bytes()
        except OSError as error:
            raise TrainingError(f"{path}: {error.strerror}.") from error


def split_off(files: Files, share: float, seed: int) -> tuple[Files, Files]:
    """Two parts of the files: without, and with, about that share of every class, drawn by `seed`.

    Each image is drawn by itself, by its path, so that images that are added move no other: what a network has
    learnt is no test image of the next one. Hence a class meets the share give or take sqrt(n * share * (1 - share))
    images, 4 of 100 for a fifth. Of a class with several images the lowest draw is in the second part and the
    highest in the first, whatever the share (only there may a new image move another); a single one is in the first.
    """
    draws = np.array([_draw(path, seed) for path in files.paths])
    chosen = draws < share
    for number in np.unique(files.classes):
        members = np.flatnonzero(files.classes == number)
        chosen[members[draws[members].argmin()]] = True
        chosen[members[draws[members].argmax()]] = False
    return files.at(np.flatnonzero(~chosen)), files.at(np.flatnonzero(chosen))


def _draw(path: str, seed: int) -> float:
    """A number in 0..1 that follows from path and seed alone, whatever other files there are."""
    digest = hashlib.sha256(f"{seed}\0".encode() + os.fsencode(path)).digest()
    return int.from_bytes(digest[:8]) / 2**64


def as_dataset(name: str, title: str, listing: Listing, wanted: Wanted, cache: ImageCache) -> Dataset:
    """The images of a listing, to train on. Raises TrainingError when recorded test images are gone."""
    origin = {"folder": str(listing.folder.resolve()), "digest": listing.digest()}
    train, test = listing.train, listing.test
    if test is None:
        train, test = _divided(listing, wanted)
        origin |= {"test_files": list(test.paths), "test_share": wanted.test_share}
    splits = [FolderSplit(listing.folder, files, wanted.form, cache) for files in (train, test)]
    return Dataset(name, title, listing.labels, *splits, preprocessing=wanted.form.preprocessing, origin=origin)


def _divided(listing: Listing, wanted: Wanted) -> tuple[Files, Files]:
    if wanted.test_files is None:
        return split_off(listing.train, wanted.test_share, wanted.seed)
    data_options = {path: index for index, path in enumerate(listing.train.paths)}
    if gone := [path for path in wanted.test_files if path not in data_options]:
        raise TrainingError(f"{listing.folder} lacks {len(gone):,} of the run's test images: {', '.join(gone[:5])}.")
    second = np.array([data_options[path] for path in wanted.test_files], np.int64)
    return listing.train.at(np.setdiff1d(np.arange(len(listing.train)), second)), listing.train.at(second)


def division_digest(origin: Mapping[str, Any]) -> str | None:
    """SHA-256 of a data set's files and of which are for the test, from its `origin`; None where it is no folder."""
    if not origin:
        return None
    names = [origin["digest"], *origin.get("test_files", ())]
    return hashlib.sha256(b"\0".join(map(os.fsencode, names))).hexdigest()


def all_of(
    name: str, title: str, listing: Listing, labels: Sequence[str], form: InputSpec, drawn: Drawn | None = None
) -> Dataset:
    """What a listing has to measure a network with: its test set, or the `drawn` part, or else all its images.

    Classes go by their names. Raises TrainingError for one that is not among `labels`.
    """
    if strange := sorted(set(listing.labels) - set(labels)):
        raise TrainingError(f"{listing.folder} has classes that the network does not know: {', '.join(strange)}.")
    files, note = _to_measure(listing, drawn)
    same = tuple(labels) == listing.labels  # some of ImageNet's classes share their name
    number = np.array([i if same else labels.index(label) for i, label in enumerate(listing.labels)])
    split = FolderSplit(listing.folder, Files(files.paths, number[files.classes]), form, ImageCache(0))
    return Dataset(name, title, tuple(labels), split, split, note, preprocessing=form.preprocessing)


def _to_measure(listing: Listing, drawn: Drawn | None) -> tuple[Files, str | None]:
    """The files, and what must be known of them."""
    if listing.test is not None:
        return listing.test, None
    if drawn is not None:
        return split_off(listing.train, drawn.test_share, drawn.seed)[1], None
    return listing.train, "all of the folder's images, also those that it may have been trained on"
