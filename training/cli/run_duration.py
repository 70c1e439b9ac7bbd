"""Estimates how long runs on a folder of images take on this machine, in a second and before Keras is imported.

A few of the images are decoded, and the network's arithmetic is compared with a matrix product. Covers only the three
recipes that `convoy-train run FOLDER` suggests.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.hardware import usable_cores
from training.data.datasets.folder_listing import list_images
from training.data.datasets.image_files import read_image_file
from training.errors import TrainingError
from training.recipes.own_images import SUGGESTED, Suggestion

SAMPLE_IMAGES = 12
MATRIX_SIDE = 1024
PRODUCTS = 5
"""Number of timed matrix products. The fastest counts, because other processes slowed the others down."""
TRAINING_COST = 3.0
"""Cost of a training step in forward passes: the backward pass costs two."""
TRAINING_SHARE = 0.67
"""Training images, plus a third of the validation images, as a fraction of all images."""
EFFICIENCY = 0.2
"""Fraction of the matrix product's speed that training reaches on CPUs."""


@dataclass(frozen=True)
class FolderSpeed:
    """A folder of images, and the speed of this machine."""

    classes: int
    images: int
    decode_s: float
    """Seconds per image for reading and decoding, with all cores together."""
    multiply_adds_per_s: float

    def duration_s(self, suggestion: Suggestion) -> float:
        """Returns the estimated seconds of a run."""
        compute_s = TRAINING_COST * suggestion.multiply_adds / (EFFICIENCY * self.multiply_adds_per_s)
        return suggestion.epochs * self.images * TRAINING_SHARE * (self.decode_s + compute_s)


def durations(folder: Path) -> tuple[str, dict[str, str]]:
    """Returns a description of the folder, and the estimated duration of each suggestion by name.

    Raises TrainingError for a folder without classes.
    """
    speed = measure(folder)
    about = f"{speed.images:,} images of {speed.classes} classes"
    return about, {one.name: describe(speed.duration_s(one)) for one in SUGGESTED}


def measure(folder: Path, clock: Callable[[], float] = time.monotonic) -> FolderSpeed:
    """Times the decoding of a few images and a matrix product. Raises TrainingError."""
    listing = list_images(folder)
    paths = listing.train.paths[:: max(1, len(listing.train) // SAMPLE_IMAGES)][:SAMPLE_IMAGES]
    started_s = clock()
    for path in paths:
        try:
            read_image_file(folder / path, 3, 255)
        except TrainingError:  # reported when training starts
            continue
    decode_s = (clock() - started_s) / len(paths) / usable_cores()
    matrix = np.ones((MATRIX_SIDE, MATRIX_SIDE), np.float32)
    product_s = min(_product_s(matrix, clock) for _ in range(PRODUCTS))
    return FolderSpeed(len(listing.labels), len(listing.train), decode_s, MATRIX_SIDE**3 / product_s)


def _product_s(matrix: NDArray[np.float32], clock: Callable[[], float]) -> float:
    started_s = clock()
    matrix @ matrix
    return max(clock() - started_s, 1e-6)


def describe(seconds: float) -> str:
    """Returns a rough duration: "about 20 minutes"."""
    units = ((48 * 3600, 86_400, "day"), (90 * 60, 3600, "hour"), (90, 60, "minute"), (0, 1, "second"))
    unit_s, unit = next((unit_s, unit) for minimum_s, unit_s, unit in units if seconds >= minimum_s)
    count = max(1, round(seconds / unit_s))
    if count > 20:
        count = round(count, -1)
    return f"about {count} {unit}{'s' * (count > 1)}"
