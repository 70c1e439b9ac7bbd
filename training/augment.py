"""Random changes to batches of training pictures, in NumPy. What happens to a batch depends on its random generator
alone, so results are the same however many threads prepare them.
"""

import math
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.pictures import Box, Boxes
from training.recipes.base import Recipe

Pictures = NDArray[np.uint8]
Range = tuple[float, ...]

CROP_TRIES = 10


def augment(pictures: Pictures, recipe: Recipe, random: Generator) -> Pictures:
    """All that the recipe asks for, on uint8 pictures (n, height, width, channels); gives new ones of that shape."""
    if recipe.shift_px:
        pictures = shift(pictures, recipe.shift_px, recipe.shift_fill, random)
    if recipe.flip:
        pictures = flip(pictures, random)
    return pictures


def shift(pictures: Pictures, pixels: int, fill: str, random: Generator) -> Pictures:
    """Moves every picture by -pixels to +pixels on each axis; what comes in is black, or the mirrored edge."""
    count, height, width, _ = pictures.shape
    margins = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = np.pad(pictures, margins, mode="reflect" if fill == "reflect" else "constant")
    top, left = random.integers(0, 2 * pixels + 1, (2, count))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return windows[np.arange(count), top, left].transpose(0, 2, 3, 1)


def flip(pictures: Pictures, random: Generator) -> Pictures:
    """Mirrors every second picture, by chance, left to right."""
    mirrored = random.random(len(pictures)) < 0.5
    return np.where(mirrored[:, None, None, None], pictures[:, :, ::-1], pictures)


def random_boxes(count: int, area: Range, aspect: Range, random: Generator) -> Boxes:
    """A random part of each of `count` pictures, as GoogLeNet's authors cut them: see `_box`."""
    return partial(_box, random.random((count, CROP_TRIES, 4)), area, aspect)


def _box(draws: NDArray[np.float64], area: Range, aspect: Range, index: int, width: int, height: int) -> Box:
    """A share of the area between two bounds, width over height between two others (evenly by its logarithm), anywhere
    in the picture; where ten tries fit no such part in, the largest in the middle that keeps the bounds of the aspect.
    """
    log_least, log_greatest = math.log(aspect[0]), math.log(aspect[1])
    for share, shape, across, down in draws[index]:
        pixels = width * height * (area[0] + share * (area[1] - area[0]))
        ratio = math.exp(log_least + shape * (log_greatest - log_least))
        wide, tall = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - tall + 1))
            return left, top, left + wide, top + tall
    ratio = min(max(width / height, aspect[0]), aspect[1])
    wide, tall = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall
