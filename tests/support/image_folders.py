"""Folders of images for tests: each class has its colour, each image its size, format and noise."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 30, 120), "green": (60, 150, 70), "red": (250, 190, 180)}
KINDS = (("jpg", "RGB"), ("png", "RGB"), ("webp", "RGB"), ("bmp", "RGB"), ("gif", "P"), ("png", "RGBA"))


def fill(folder: Path, *classes: str, count: int = 6, seed: int = 0) -> Path:
    """`folder/<class>/` with `count` images each, in turn of every format that the service reads."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            suffix, mode = KINDS[number % len(KINDS)]
            coloured(COLOURS[name], random).convert(mode).save(folder / name / f"{number:03}.{suffix}")
    return folder


def coloured(colour: tuple[int, int, int], random: np.random.Generator) -> Image.Image:
    height, width = random.integers(40, 80, 2)
    pixels = np.array(colour) + random.normal(0, 25, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
