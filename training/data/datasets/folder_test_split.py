"""Selects the test images of a folder without a test set, and recognizes them later.

Only the names and sizes of files are read. Images are not opened.
"""

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.datasets.folder_listing import FolderListing, LabeledFiles, path_and_size
from training.errors import TrainingError

FINGERPRINT_BYTES = 4
MAX_FINGERPRINTS = 100_000
"""Maximum number of test images whose fingerprints a manifest stores."""


@dataclass(frozen=True)
class TestSplitSpec:
    """The arguments that a run passed to `split_test_files`."""

    test_share: float
    seed: int


def split_train_test(
    listing: FolderListing, test_share: float, seed: int, recorded: Sequence[str] | None
) -> tuple[LabeledFiles, LabeledFiles]:
    """Splits a folder without a test set into training and test files.

    The test files are the files that an earlier run recorded (`recorded`), or else the files that `split_test_files`
    draws. Raises TrainingError if recorded files are missing.
    """
    if recorded is None:
        return split_test_files(listing.train, test_share, seed)
    index_by_path = {path: index for index, path in enumerate(listing.train.paths)}
    if missing := [path for path in recorded if path not in index_by_path]:
        raise TrainingError(
            f"{listing.folder} lacks {len(missing):,} of the run's test images: {', '.join(missing[:5])}."
        )
    test_indices = np.array([index_by_path[path] for path in recorded], np.int64)
    train_indices = np.setdiff1d(np.arange(len(listing.train)), test_indices)
    return listing.train.select(train_indices), listing.train.select(test_indices)


def evaluation_files(listing: FolderListing, test_split: TestSplitSpec | None) -> tuple[LabeledFiles, bool]:
    """Returns the files for evaluating a network, and whether they were excluded from training."""
    if listing.test is not None:
        return listing.test, True
    if test_split is not None:
        return split_test_files(listing.train, test_split.test_share, test_split.seed)[1], True
    return listing.train, False


def split_test_files(files: LabeledFiles, test_share: float, seed: int) -> tuple[LabeledFiles, LabeledFiles]:
    """Splits files into training and test files. About `test_share` of each class, drawn with `seed`, are test files.

    Each image is drawn independently, by a hash of its path. Added images therefore do not move others between the
    sets, with one exception: in a class with several images, the lowest draw is always a test file and the highest
    always a training file, so a new lowest or highest draw can move the image that it replaces. The number of test
    images per class has a standard deviation of sqrt(n * share * (1 - share)), 4 for 100 images and a share of 0.2. In
    a class with a single image, that image is a training file.
    """
    fractions = np.array([path_fraction(path, f"{seed}") for path in files.paths])
    is_test = fractions < test_share
    for class_number in np.unique(files.classes):
        members = np.flatnonzero(files.classes == class_number)
        is_test[members[fractions[members].argmin()]] = True
        is_test[members[fractions[members].argmax()]] = False
    return files.select(np.flatnonzero(~is_test)), files.select(np.flatnonzero(is_test))


def path_fraction(path: str, stream: str) -> float:
    """Returns a pseudorandom number in 0..1 that depends only on the path and the stream's name."""
    digest = hashlib.sha256(f"{stream}\0".encode() + os.fsencode(path)).digest()
    return int.from_bytes(digest[:8]) / 2**64


def fingerprints(folder: Path, paths: Sequence[str]) -> str | None:
    """Returns the sorted fingerprints of the files as base64, or None for more than MAX_FINGERPRINTS files.

    A fingerprint is a few bytes of the hash of a file's path and size. Fingerprints show whether all files still exist,
    without storing their names.
    """
    if len(paths) > MAX_FINGERPRINTS:
        return None
    return base64.b64encode(b"".join(sorted(_fingerprints(folder, paths)))).decode()


def count_missing(recorded: str, folder: Path, paths: Iterable[str]) -> tuple[int, int]:
    """Returns the number of recorded files that are missing or have another size, and the number of recorded files."""
    joined = base64.b64decode(recorded)
    expected = [joined[start : start + FINGERPRINT_BYTES] for start in range(0, len(joined), FINGERPRINT_BYTES)]
    return (Counter(expected) - Counter(_fingerprints(folder, paths))).total(), len(expected)


def _fingerprints(folder: Path, paths: Iterable[str]) -> list[bytes]:
    names = (path_and_size(folder, path) for path in paths)
    return [hashlib.sha256(os.fsencode(name)).digest()[:FINGERPRINT_BYTES] for name in names]


def split_digest(origin: Mapping[str, Any]) -> str | None:
    """Returns a SHA-256 that identifies a folder's files and its test files, computed from a data set's `origin`.
    Returns None if `origin` is empty, because the data set is not a folder."""
    if not origin:
        return None
    names = [origin["digest"], *origin.get("test_files", ())]
    return hashlib.sha256(b"\0".join(map(os.fsencode, names))).hexdigest()
