"""Encoded images for tests, drawn from random pixels."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def random_pixels(height: int, width: int, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, channels), np.uint8)


def encode(pixels: NDArray[np.uint8], image_format: str = "PNG", **options: object) -> bytes:
    """Pixels (h, w, 1 or 3) as a file of that format."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(file, image_format, **options)
    return file.getvalue()


def image_bytes(height: int = 8, width: int = 8, channels: int = 1, seed: int = 0, image_format: str = "PNG") -> bytes:
    return encode(random_pixels(height, width, channels, seed), image_format)
