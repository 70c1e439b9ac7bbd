"""Images in a folder of class folders: any number, sizes and formats, decoded when they are asked for.

What a network is evaluated on comes through the service's decoding and preprocessing; what it trains on in random
parts is cut from the same decoded images, first scaled down where they are far larger than the network's input.
"""

import base64
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ConvoyError
from service.hardware import usable_cores
from service.imaging.decode import decode
from training.data.datasets.base import Dataset
from training.data.datasets.folder_listing import FolderListing, LabeledFiles
from training.data.datasets.image_files import (
    MAX_PIXELS,
    Boxes,
    InputSpec,
    Pixels,
    crop_and_resize,
    prepare_image_file,
    shrink_to_shorter_side,
)
from training.data.datasets.memory_cache import ImageCache
from training.errors import TrainingError, system_error

MIN_CACHED_SCALE = 2
"""Random parts are cut from images reduced to so many times the input's longer side (on their shorter one), or more
where the smallest parts need more: a part of a hundredth of the area has a tenth of the side."""
MAX_FUTURES = 1000
FINGERPRINT_BYTES = 4
MAX_FINGERPRINTS = 100_000
"""Test images of a folder that a manifest has room for."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class FolderOptions:
    """The input that a folder's images become, and the test set of a folder that has none by itself.

    The test set is `test_files` where an earlier run has recorded them, else about `test_share` of each class, chosen
    by `seed`. `split_by_path` is whether the validation and held-out images are drawn by path.
    """

    input_spec: InputSpec
    test_share: float
    seed: int
    test_files: Sequence[str] | None = None
    min_crop_area: float = 1.0
    """Share of the area of the smallest random parts that will be cut from the images."""
    split_by_path: bool = False


@dataclass(frozen=True)
class TestSplitSpec:
    """The arguments of `split_test_files` with which a run drew its test images."""

    test_share: float
    seed: int


class FolderSplit:
    """Image files with their classes. The cache changes nothing but how long a second look takes."""

    def __init__(
        self,
        folder: Path,
        files: LabeledFiles,
        input_spec: InputSpec,
        cache: ImageCache,
        min_crop_area: float = 1.0,
    ) -> None:
        self._folder = folder
        self._files = files
        self._input_spec = input_spec
        self._cache = cache
        self._min_crop_area = min_crop_area

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._input_spec.input.shape

    @property
    def labels(self) -> Indices:
        return self._files.classes

    def __len__(self) -> int:
        return len(self._files)

    def read_images(self, indices: Indices) -> Pixels:
        return np.stack([self._prepared_image(self._files.paths[index]) for index in indices])

    def read_crops(self, indices: Indices, boxes: Boxes, side_px: int | None = None) -> Pixels:
        height, width = (side_px, side_px) if side_px else self.shape[:2]
        crops = []
        for i, index in enumerate(indices):
            pixels = self._downscaled_image(self._files.paths[index])
            crops.append(crop_and_resize(pixels, boxes(i, pixels.shape[1], pixels.shape[0]), height, width))
        return np.stack(crops)

    def encoded_image(self, index: int) -> bytes:
        return self._read_bytes(self._files.paths[index])

    def find_unreadable(self, indices: Indices) -> Mapping[int, str]:
        errors: dict[int, str] = {}
        with ThreadPoolExecutor(usable_cores()) as threads:
            for start in range(0, len(indices), MAX_FUTURES):  # a million futures would take gigabytes
                chunk = indices[start : start + MAX_FUTURES]
                reasons = threads.map(self._read_error, chunk)
                errors |= {int(index): reason for index, reason in zip(chunk, reasons, strict=True) if reason}
        return errors

    def digest(self, indices: Indices) -> str:
        lines = (f"{_path_and_size(self._folder, self._files.paths[i])}\0{self._files.classes[i]}\0" for i in indices)
        return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()

    def without(self, indices: Sequence[int]) -> "FolderSplit":
        remaining = self._files.select(np.setdiff1d(np.arange(len(self)), indices))
        return FolderSplit(self._folder, remaining, self._input_spec, self._cache, self._min_crop_area)

    def _read_error(self, index: int) -> str | None:
        try:
            self._decode(self._files.paths[index])
        except TrainingError as error:
            return str(error)
        return None

    def _prepared_image(self, path: str) -> Pixels:
        return self._cache.get_or_make(("prepared", path), lambda: self._prepare(path))

    def _downscaled_image(self, path: str) -> Pixels:
        scale = max(MIN_CACHED_SCALE, 1 / math.sqrt(self._min_crop_area))
        shorter = math.ceil(scale * max(self.shape[:2]))
        return self._cache.get_or_make(
            ("downscaled", path), lambda: shrink_to_shorter_side(self._decode(path), shorter)
        )

    def _prepare(self, path: str) -> Pixels:
        with _naming(path):
            return prepare_image_file(self._read_bytes(path), self._input_spec.input, self._input_spec.preprocessing)

    def _decode(self, path: str) -> Pixels:
        input_spec = self._input_spec
        with _naming(path):
            return decode(
                self._read_bytes(path), input_spec.input.channels, input_spec.preprocessing.background, MAX_PIXELS
            )

    def _read_bytes(self, path: str) -> bytes:
        try:
            return (self._folder / path).read_bytes()
        except OSError as error:
            raise system_error(f"{path}: {error.strerror}.", error) from error


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Names the file in the error of an image that is not usable."""
    try:
        yield
    except ConvoyError as error:
        raise TrainingError(f"{path}: {error.message}") from error


def split_test_files(files: LabeledFiles, test_share: float, seed: int) -> tuple[LabeledFiles, LabeledFiles]:
    """Two parts of the files: without, and with, about that share of every class, drawn by `seed`.

    Each image is drawn by itself, by its path, so that images that are added move no other: what a network has
    learnt is no test image of the next one. Hence a class meets the share give or take sqrt(n * share * (1 - share))
    images, 4 of 100 for a fifth. Of a class with several images the lowest draw is in the second part and the
    highest in the first, whatever the share (only there may a new image move another); a single one is in the first.
    """
    fractions = np.array([path_fraction(path, f"{seed}") for path in files.paths])
    is_test = fractions < test_share
    for class_number in np.unique(files.classes):
        members = np.flatnonzero(files.classes == class_number)
        is_test[members[fractions[members].argmin()]] = True
        is_test[members[fractions[members].argmax()]] = False
    return files.select(np.flatnonzero(~is_test)), files.select(np.flatnonzero(is_test))


def path_fraction(path: str, stream: str) -> float:
    """A number in 0..1 that follows from the path and the stream's name alone, whatever other files there are."""
    digest = hashlib.sha256(f"{stream}\0".encode() + os.fsencode(path)).digest()
    return int.from_bytes(digest[:8]) / 2**64


def fingerprints(folder: Path, paths: Sequence[str]) -> str | None:
    """Base64 of a few bytes per file, from its path and size, sorted; None for more than MAX_FINGERPRINTS files.

    They find out whether all of these files are still there, without their names.
    """
    if len(paths) > MAX_FINGERPRINTS:
        return None
    return base64.b64encode(b"".join(sorted(_fingerprints(folder, paths)))).decode()


def count_missing(recorded: str, folder: Path, paths: Iterable[str]) -> tuple[int, int]:
    """How many files of `fingerprints` are not among these, or with another size, and how many there were."""
    joined = base64.b64decode(recorded)
    expected = [joined[start : start + FINGERPRINT_BYTES] for start in range(0, len(joined), FINGERPRINT_BYTES)]
    return (Counter(expected) - Counter(_fingerprints(folder, paths))).total(), len(expected)


def _fingerprints(folder: Path, paths: Iterable[str]) -> list[bytes]:
    names = (_path_and_size(folder, path) for path in paths)
    return [hashlib.sha256(os.fsencode(name)).digest()[:FINGERPRINT_BYTES] for name in names]


def _path_and_size(folder: Path, path: str) -> str:
    return f"{path}\0{(folder / path).stat().st_size}"


def training_dataset(
    name: str, title: str, listing: FolderListing, folder_options: FolderOptions, cache: ImageCache
) -> Dataset:
    """The images of a listing, to train on. Raises TrainingError when recorded test images are gone."""
    origin: dict[str, Any] = {"folder": str(listing.folder.resolve()), "digest": listing.digest()}
    train, test = listing.train, listing.test
    if test is None:
        train, test = _split_train_test(listing, folder_options)
        origin |= {"test_files": list(test.paths), "test_share": folder_options.test_share}
        origin |= {"test_fingerprints": fingerprints(listing.folder, test.paths)}
    if folder_options.split_by_path:
        origin |= {"split_by_path": True}
    train_split, test_split = (
        FolderSplit(listing.folder, files, folder_options.input_spec, cache, folder_options.min_crop_area)
        for files in (train, test)
    )
    return Dataset(
        name,
        title,
        listing.labels,
        train_split,
        test_split,
        preprocessing=folder_options.input_spec.preprocessing,
        origin=origin,
        split_paths=train.paths if folder_options.split_by_path else (),
    )


def _split_train_test(listing: FolderListing, folder_options: FolderOptions) -> tuple[LabeledFiles, LabeledFiles]:
    if folder_options.test_files is None:
        return split_test_files(listing.train, folder_options.test_share, folder_options.seed)
    index_by_path = {path: index for index, path in enumerate(listing.train.paths)}
    if missing := [path for path in folder_options.test_files if path not in index_by_path]:
        raise TrainingError(
            f"{listing.folder} lacks {len(missing):,} of the run's test images: {', '.join(missing[:5])}."
        )
    test_indices = np.array([index_by_path[path] for path in folder_options.test_files], np.int64)
    train_indices = np.setdiff1d(np.arange(len(listing.train)), test_indices)
    return listing.train.select(train_indices), listing.train.select(test_indices)


def split_digest(origin: Mapping[str, Any]) -> str | None:
    """SHA-256 of a data set's files and of which are for the test, from its `origin`; None where it is no folder."""
    if not origin:
        return None
    names = [origin["digest"], *origin.get("test_files", ())]
    return hashlib.sha256(b"\0".join(map(os.fsencode, names))).hexdigest()


def evaluation_dataset(
    name: str,
    title: str,
    listing: FolderListing,
    labels: Sequence[str],
    input_spec: InputSpec,
    test_split: TestSplitSpec | None = None,
) -> Dataset:
    """The images of a listing to evaluate a network on: its test set, or those of `test_split`, or else all.

    Classes go by their names. Raises TrainingError for one that is not among `labels`.
    """
    if unknown := sorted(set(listing.labels) - set(labels)):
        raise TrainingError(f"{listing.folder} has classes that the network does not know: {', '.join(unknown)}.")
    files, note = _evaluation_files(listing, test_split)
    is_same_order = tuple(labels) == listing.labels  # some of ImageNet's classes share their name
    class_numbers = np.array([i if is_same_order else labels.index(label) for i, label in enumerate(listing.labels)])
    split = FolderSplit(
        listing.folder, LabeledFiles(files.paths, class_numbers[files.classes]), input_spec, ImageCache(0)
    )
    return Dataset(name, title, tuple(labels), split, split, note, preprocessing=input_spec.preprocessing)


def _evaluation_files(listing: FolderListing, test_split: TestSplitSpec | None) -> tuple[LabeledFiles, str | None]:
    """The files, and what must be known of them."""
    if listing.test is not None:
        return listing.test, None
    if test_split is not None:
        return split_test_files(listing.train, test_split.test_share, test_split.seed)[1], None
    return listing.train, "all of the folder's images, also those that it may have been trained on"
