"""Random changes to batches of training pictures, in NumPy. What happens to a batch depends on its random generator
alone, so results are the same however many threads prepare them.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.recipes.base import Recipe

Pictures = NDArray[np.uint8]


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
