"""RandAugment with Pillow: applies a few transformations of one strength to each image, drawn from fourteen.

Cubuk et al. 2019, with the transformations and ranges of torchvision's `RandAugment`. The maximum strength is 30.
Pixels outside the image get the mean color.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from training.data.sharding import RandomGenerator
from training.recipes.base import Recipe

Images = NDArray[np.uint8]
Color = tuple[int, ...]
Change = Callable[[Image.Image, float, Color], Image.Image]
"""Changes an image, given the strength (-1 to 1, or 0 to 1 without a direction) and the color outside the image."""

MAX_MAGNITUDE = 30
MAX_SHEAR, MAX_TRANSLATION, MAX_ROTATION_DEGREES, MAX_ENHANCEMENT = 0.3, 150 / 331, 30, 0.9
REMOVED_BITS = 4
"""Bits per color that posterizing removes at maximum strength."""


def rand_augment(images: Images, recipe: Recipe, random: RandomGenerator) -> Images:
    """Applies `randaugment` changes to each image, uint8 (n, height, width, 1 or 3), one after the other."""
    size = len(images), recipe.randaugment
    numbers, signs = random.integers(0, len(CHANGES), size), 2 * random.integers(0, 2, size) - 1
    strengths = signs * (recipe.randaugment_magnitude / MAX_MAGNITUDE)
    channels = images.shape[-1]
    fill = tuple(round(255 * mean) for mean in np.broadcast_to(recipe.mean, channels))
    changes = tuple(CHANGES.values())
    changed = np.empty_like(images)
    for index, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        for number, strength in zip(numbers[index], strengths[index], strict=True):
            image = changes[number](image, float(strength), fill)
        changed[index] = np.asarray(image).reshape(pixels.shape)
    return changed


def _transform(image: Image.Image, matrix: tuple[float, ...], fill: Color) -> Image.Image:
    """Moves the pixel at (ax + by + c, dx + ey + f) to (x, y), for a matrix (a, b, c, d, e, f)."""
    color = fill[0] if len(fill) == 1 else fill
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=color)


def _rotate(image: Image.Image, strength: float, fill: Color) -> Image.Image:
    degrees = strength * MAX_ROTATION_DEGREES
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=fill[0] if len(fill) == 1 else fill)


def _shift_px(strength: float, side_px: int) -> int:
    return math.trunc(strength * MAX_TRANSLATION * side_px)


def _enhance(enhancer: Callable[[Image.Image], Any]) -> Change:
    """Returns a change that mixes the image with a degenerate one: black, gray, mean gray or smoothed."""
    return lambda image, strength, _: enhancer(image).enhance(1 + strength * MAX_ENHANCEMENT)


CHANGES: dict[str, Change] = {
    "identity": lambda image, *_: image,
    "shear_x": lambda image, strength, fill: _transform(image, (1, strength * MAX_SHEAR, 0, 0, 1, 0), fill),
    "shear_y": lambda image, strength, fill: _transform(image, (1, 0, 0, strength * MAX_SHEAR, 1, 0), fill),
    "translate_x": lambda image, strength, fill: _transform(
        image, (1, 0, -_shift_px(strength, image.width), 0, 1, 0), fill
    ),
    "translate_y": lambda image, strength, fill: _transform(
        image, (1, 0, 0, 0, 1, -_shift_px(strength, image.height)), fill
    ),
    "rotate": _rotate,
    "brightness": _enhance(ImageEnhance.Brightness),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "posterize": lambda image, strength, _: ImageOps.posterize(image, 8 - round(abs(strength) * REMOVED_BITS)),
    "solarize": lambda image, strength, _: ImageOps.solarize(image, math.ceil(255 * (1 - abs(strength)))),
    "autocontrast": lambda image, *_: ImageOps.autocontrast(image),
    "equalize": lambda image, *_: ImageOps.equalize(image),
}
