"""Photos as large as those of a phone, made of smaller ones: enlarged, sharpened and with sensor noise.

An image that is only enlarged has no detail in its finest frequencies, which makes its JPEG small and quick to decode.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from tests.bench.errors import CannotMeasure

NOISE = 4.0
"""Standard deviation of the sensor noise, in levels of 255."""
QUALITY = 90
SHARPEN = ImageFilter.UnsharpMask(radius=2, percent=150, threshold=0)
SHARPENED_DIVISOR = 4
"""The image is sharpened at this part of its size: its own detail is no finer."""
_ZERO = 128


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `4032x3024`. Raises ValueError."""
    width, height = map(int, text.split("x"))
    return width, height


def phone_photo(image: Image.Image, size: tuple[int, int], seed: int) -> bytes:
    """A JPEG of this size; the image is cropped to its shape."""
    small = ImageOps.fit(image.convert("RGB"), _divided(size), Image.Resampling.LANCZOS).filter(SHARPEN)
    large = small.resize(size, Image.Resampling.BICUBIC)
    noisy = ImageChops.add(large, _shifted_noise(size, seed), offset=-_ZERO)
    file = io.BytesIO()
    noisy.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def write_photos(sources: list[Path], size: tuple[int, int], folder: Path) -> None:
    """Writes a photo of this size for each source. Raises CannotMeasure without sources."""
    if not sources:
        raise CannotMeasure("There is no image to make photos of.")
    for seed, source in enumerate(sources):
        with Image.open(source) as image:
            (folder / f"{seed:04}.jpg").write_bytes(phone_photo(image, size, seed))


def _divided(size: tuple[int, int]) -> tuple[int, int]:
    return max(1, size[0] // SHARPENED_DIVISOR), max(1, size[1] // SHARPENED_DIVISOR)


def _shifted_noise(size: tuple[int, int], seed: int) -> Image.Image:
    """The same noise at another place for each photo: drawing 12 million normal numbers takes most of a second."""
    x, y = np.random.default_rng(seed).integers(0, size)
    return ImageChops.offset(_noise(size), int(x), int(y))


@cache
def _noise(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(0).normal(_ZERO, NOISE, (size[1], size[0], 3))
    return Image.fromarray(np.rint(noise).astype(np.uint8))
