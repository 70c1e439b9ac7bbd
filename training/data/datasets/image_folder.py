"""Images in a folder of class folders, in any number, size and format, decoded on demand.

Evaluation images go through the service's decoding and preprocessing. Random crops for training are taken from the same
decoded images. An image much larger than the network's input is scaled down before it is cropped.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
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
from training.data.datasets.folder_listing import FolderListing, LabeledFiles, path_and_size
from training.data.datasets.folder_test_split import TestSplitSpec, evaluation_files, fingerprints, split_train_test
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
"""Images are scaled down before they are cropped, so that their shorter side is this multiple of the input's longer
side. Small crops need a larger multiple: a crop with 1% of the area has only 10% of the side length."""
MAX_FUTURES = 1000

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class FolderOptions:
    """Options for reading a folder: the network's input, and the choice of the test set if the folder has no `val`.

    The test set is `test_files` if an earlier run recorded them, otherwise about `test_share` of each class, drawn at
    random with `seed`. With `split_by_path`, a hash of an image's path decides whether it is a validation or held-out
    image; otherwise a random permutation decides.
    """

    input_spec: InputSpec
    test_share: float
    seed: int
    test_files: Sequence[str] | None = None
    min_crop_area: float = 1.0
    """Minimum area of a random crop, as a fraction of the image's area."""
    split_by_path: bool = False


class FolderSplit:
    """Image files with their classes. The cache only makes repeated reads faster."""

    def __init__(
        self, folder: Path, files: LabeledFiles, input_spec: InputSpec, cache: ImageCache, min_crop_area: float = 1.0
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
        lines = (f"{path_and_size(self._folder, self._files.paths[i])}\0{self._files.classes[i]}\0" for i in indices)
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
    """Re-raises errors about an unusable image as TrainingError with the file's path."""
    try:
        yield
    except ConvoyError as error:
        raise TrainingError(f"{path}: {error.message}") from error


def training_dataset(
    name: str, title: str, listing: FolderListing, folder_options: FolderOptions, cache: ImageCache
) -> Dataset:
    """Returns the images of a listing for training. Raises TrainingError if recorded test images are missing."""
    origin: dict[str, Any] = {"folder": str(listing.folder.resolve()), "digest": listing.digest()}
    train, test = listing.train, listing.test
    if test is None:
        train, test = split_train_test(
            listing, folder_options.test_share, folder_options.seed, folder_options.test_files
        )
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


def evaluation_dataset(
    name: str,
    title: str,
    listing: FolderListing,
    labels: Sequence[str],
    input_spec: InputSpec,
    test_split: TestSplitSpec | None = None,
) -> Dataset:
    """Returns the images for evaluating a network: the listing's test set, else the test images drawn by `test_split`,
    else all images.

    Classes are matched by name. Raises TrainingError for a class that is not in `labels`.
    """
    if unknown := sorted(set(listing.labels) - set(labels)):
        raise TrainingError(f"{listing.folder} has classes that the network does not have: {', '.join(unknown)}.")
    files, is_test_set = evaluation_files(listing, test_split)
    # Names alone do not suffice, because some of ImageNet's classes have the same name.
    is_same_order = tuple(labels) == listing.labels
    class_numbers = np.array([i if is_same_order else labels.index(label) for i, label in enumerate(listing.labels)])
    split = FolderSplit(
        listing.folder, LabeledFiles(files.paths, class_numbers[files.classes]), input_spec, ImageCache(0)
    )
    return Dataset(
        name, title, tuple(labels), split, split, preprocessing=input_spec.preprocessing, is_test_set=is_test_set
    )
