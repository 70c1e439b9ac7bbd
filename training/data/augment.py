"""Random changes to batches of training images, in NumPy.

The result depends only on the batch and its random generator, not on the number of threads.
"""

import math
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from training.data.color_jitter import changes_color, color_jitter
from training.data.datasets.image_files import Box, Boxes
from training.data.rand_augment import rand_augment
from training.data.sharding import RandomGenerator
from training.recipes.base import Recipe

Images = NDArray[np.uint8]
Labels = NDArray[np.float32]
Range = tuple[float, ...]

MAX_CROP_TRIES = 10
ERASED_AREA, ERASED_ASPECT = (0.02, 0.4), (0.3, 1 / 0.3)
"""Bounds of an erased rectangle: fraction of the image's area, and width / height."""


def augment(images: Images, recipe: Recipe, random: RandomGenerator) -> Images:
    """Applies the recipe's augmentation to uint8 images (n, height, width, channels); returns new images."""
    if recipe.shift_px:
        images = shift(images, recipe.shift_px, recipe.shift_fill, random)
    if recipe.flip:
        images = flip(images, random)
    if recipe.randaugment:
        images = rand_augment(images, recipe, random)
    if changes_color(recipe):
        images = color_jitter(images, recipe, random)
    if recipe.random_erasing:
        images = erase(images, recipe.random_erasing, random)
    if recipe.cutout_px:
        images = cutout(images, recipe.cutout_px, recipe.mean, random)
    return images


def scaled_to_side(recipe: Recipe, side_px: int) -> Recipe:
    """Returns the recipe for smaller images: shift and cutout shrink in proportion, to at least one pixel if not 0."""
    factor = side_px / recipe.progressive_side_px[-1]
    pixels = {name: getattr(recipe, name) for name in ("shift_px", "cutout_px")}
    return replace(recipe, **{name: max(round(factor * value), min(value, 1)) for name, value in pixels.items()})


def shift(images: Images, pixels: int, fill: str, random: RandomGenerator) -> Images:
    """Moves every image by -pixels to +pixels on each axis.

    The margin is black, or with "reflect" the mirrored edge.
    """
    count, height, width, _ = images.shape
    margins = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = np.pad(images, margins, mode="reflect" if fill == "reflect" else "constant")
    top, left = (random.integers(0, 2 * pixels + 1, count) for _ in range(2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    shifted: Images = windows[np.arange(count), top, left].transpose(0, 2, 3, 1)
    return shifted


def flip(images: Images, random: RandomGenerator) -> Images:
    """Mirrors each image left to right with a probability of one half."""
    is_flipped = random.random(len(images)) < 0.5
    flipped = images.copy()
    flipped[is_flipped] = images[is_flipped, :, ::-1]
    return flipped


def cutout(images: Images, pixels: int, mean: Range, random: RandomGenerator) -> Images:
    """Paints a square with sides of `pixels` in the color `mean` (0..1). It may reach over the edges of the image.

    DeVries and Taylor 2017, "Cutout": they paint zeros on normalized images, which is the mean as well.
    """
    count, height, width, _ = images.shape
    rows, columns = (_band_around(side, pixels, count, random) for side in (height, width))
    hole = rows[:, :, None, None] & columns[:, None, :, None]
    return np.where(hole, np.rint(255 * np.array(mean)).astype(np.uint8), images)


def erase(images: Images, probability: float, random: RandomGenerator) -> Images:
    """Replaces a random rectangle by uniform noise from 0 to 255, in each image with the given probability.

    Zhong et al. 2017, "Random erasing data augmentation", algorithm 1 and its constants. The logarithm of the aspect
    ratio is uniform, as in torchvision.
    """
    count, height, width, _ = images.shape
    is_erased = random.random(count) < probability
    boxes = random_crop_boxes(count, ERASED_AREA, ERASED_ASPECT, random)
    noise = random.integers(0, 256, images.shape, np.uint8)
    erased = images.copy()
    for index in np.flatnonzero(is_erased):
        left, top, right, bottom = (int(edge) for edge in boxes(int(index), width, height))
        erased[index, top:bottom, left:right] = noise[index, top:bottom, left:right]
    return erased


def _band_around(side: int, pixels: int, count: int, random: RandomGenerator) -> NDArray[np.bool_]:
    """Returns a mask, (count, side), that is true for `pixels` positions around a random center per image."""
    positions, center = np.arange(side), random.integers(0, side, (count, 1))
    return (positions >= center - pixels // 2) & (positions < center - pixels // 2 + pixels)


def random_crop_boxes(count: int, area: Range, aspect: Range, random: RandomGenerator) -> Boxes:
    """Draws a random crop of each of `count` images, as in GoogLeNet (Szegedy et al. 2014); see `_random_box`."""
    return partial(_random_box, random.random((count, MAX_CROP_TRIES, 4)), area, aspect)


def _random_box(draws: NDArray[np.float64], area: Range, aspect: Range, index: int, width: int, height: int) -> Box:
    """Returns a box at a random position, with a fraction of the area and an aspect ratio (width / height) within the
    bounds.

    The logarithm of the aspect ratio is uniform. If none of MAX_CROP_TRIES tries fits into the image, the result is the
    largest centered box that keeps the bounds of the aspect ratio.
    """
    log_min, log_max = math.log(aspect[0]), math.log(aspect[1])
    for area_fraction, log_position, x_fraction, y_fraction in draws[index]:
        pixels = width * height * (area[0] + area_fraction * (area[1] - area[0]))
        ratio = math.exp(log_min + log_position * (log_max - log_min))
        crop_width, crop_height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = int(x_fraction * (width - crop_width + 1)), int(y_fraction * (height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    ratio = min(max(width / height, aspect[0]), aspect[1])
    crop_width, crop_height = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height
