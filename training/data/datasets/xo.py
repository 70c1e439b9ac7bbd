"""Generated images of X and O, 24x24 gray, bright on dark, with random position, size, rotation and stroke width."""

from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.datasets.base import ArraySplit, Dataset

Floats = NDArray[np.float64]

LABELS = ("X", "O")
SIDE_PX = 24
TRAINING_IMAGES, TEST_IMAGES = 4000, 1000
SEED = 20

# Ranges of the random transformations of a glyph.
SHIFT_PX = (-3.0, 3.0)
HALF_SIZE_PX = (5.0, 9.0)
ASPECT = (0.75, 1.33)
ROTATION_DEGREES = (-30.0, 30.0)
THICKNESS_PX = (1.0, 4.0)


def load(data_dir: Path | None) -> Dataset:
    """Generates 4,000 training and 1,000 test images, half of them X. They are always the same. Ignores `data_dir`."""
    random = np.random.default_rng(SEED)
    train, test = (_draw_split(count, random) for count in (TRAINING_IMAGES, TEST_IMAGES))
    return Dataset("xo", "Generated X's and O's", LABELS, train, test)


def lesson_image() -> NDArray[np.uint8]:
    """Returns the X of the lesson, uint8 (9, 9, 1), with strokes one pixel wide; ink is 255, paper 0."""
    stroke = np.eye(7, dtype=bool)
    return np.pad((stroke | stroke[::-1]) * np.uint8(255), 1)[..., np.newaxis]


def draw(is_x: NDArray[np.bool_], random: Generator) -> NDArray[np.uint8]:
    """Draws one image per element, uint8 (n, 24, 24, 1), with smooth edges."""
    count = len(is_x)
    scale = random.uniform(*HALF_SIZE_PX, (count, 1, 1))
    aspect = random.uniform(*ASPECT, (count, 1, 1)) ** 0.5
    glyph_x, glyph_y = _glyph_coordinates(count, random)
    distance_px = np.where(
        is_x[:, None, None],
        _distance_from_cross(glyph_x, glyph_y, scale * aspect, scale / aspect),
        _distance_from_ellipse(glyph_x, glyph_y, scale * aspect, scale / aspect),
    )
    thickness_px = random.uniform(*THICKNESS_PX, (count, 1, 1))
    ink = np.clip(thickness_px / 2 + 0.5 - distance_px, 0, 1)
    return np.rint(255 * ink).astype(np.uint8)[..., np.newaxis]


def _draw_split(count: int, random: Generator) -> ArraySplit:
    labels = random.permutation(np.arange(count) % len(LABELS))
    return ArraySplit(draw(labels == LABELS.index("X"), random), labels.astype(np.int64))


def _glyph_coordinates(count: int, random: Generator) -> tuple[Floats, Floats]:
    """Returns each pixel's x and y relative to the glyph of its image, in pixels, as two arrays of shape (n, 24,
    24)."""
    shift = random.uniform(*SHIFT_PX, (2, count, 1, 1))
    angle = np.radians(random.uniform(*ROTATION_DEGREES, (count, 1, 1)))
    centered = np.arange(SIDE_PX) - (SIDE_PX - 1) / 2
    x, y = centered[None, None, :] - shift[0], centered[None, :, None] - shift[1]
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _distance_from_cross(x: Floats, y: Floats, half_width: Floats, half_height: Floats) -> Floats:
    """Returns the distance in pixels from the nearer of the two diagonals."""
    length = np.hypot(half_width, half_height)
    distances = []
    for slope in (1, -1):
        along = np.clip((x * half_width + slope * y * half_height) / length, -length, length)
        distances.append(np.hypot(x - along * half_width / length, y - slope * along * half_height / length))
    nearest: Floats = np.minimum(*distances)
    return nearest


def _distance_from_ellipse(x: Floats, y: Floats, half_width: Floats, half_height: Floats) -> Floats:
    """Returns the distance in pixels from the outline, to first order: exact for circles, close for these ellipses."""
    value = np.hypot(x / half_width, y / half_height)
    slope = np.hypot(x / half_width**2, y / half_height**2)
    distance: Floats = np.abs(value - 1) * value / np.maximum(slope, 1e-9)
    return distance
