"""Creates encoded images of random pixels for tests, and folders of images with one color per class."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLORS = {"blue": (20, 30, 120), "green": (60, 150, 70), "red": (250, 190, 180)}
FORMATS = (("jpg", "RGB"), ("png", "RGB"), ("webp", "RGB"), ("bmp", "RGB"), ("gif", "P"), ("png", "RGBA"))


def random_pixels(height: int, width: int, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, channels), np.uint8)


def encode(pixels: NDArray[np.uint8], image_format: str = "PNG", **options: object) -> bytes:
    """Encodes pixels (h, w, 1 or 3) as a file of this format."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(file, image_format, **options)
    return file.getvalue()


def image_bytes(height: int = 8, width: int = 8, channels: int = 1, seed: int = 0, image_format: str = "PNG") -> bytes:
    return encode(random_pixels(height, width, channels, seed), image_format)


def write_image_folder(folder: Path, *classes: str, count: int = 6, seed: int = 0) -> Path:
    """Writes `count` images into each `folder/<class>/`, cycling through the formats that the service reads."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            suffix, mode = FORMATS[number % len(FORMATS)]
            noisy_image(COLORS[name], random).convert(mode).save(folder / name / f"{number:03}.{suffix}")
    return folder


def noisy_image(color: tuple[int, int, int], random: np.random.Generator) -> Image.Image:
    height, width = random.integers(40, 80, 2)
    pixels = np.array(color) + random.normal(0, 25, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
