"""Creates photos as large as a phone's from smaller photos: they are enlarged and sharpened, and sensor noise is added.

An image that is only enlarged has no high frequencies, so its JPEG would be small and fast to decode.
"""

import io
import os
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
"""Fraction of the final size at which the image is sharpened, because the image has no finer detail."""
_ZERO = 128


def parse_size(text: str) -> tuple[int, int]:
    """Parses width and height from a text such as `4032x3024`. Raises ValueError."""
    width, height = map(int, text.split("x"))
    return width, height


def photos_folder() -> Path:
    """Returns the folder of photos in CONVOY_DATA. Raises CannotMeasure if CONVOY_DATA is not set."""
    if not (data := os.environ.get("CONVOY_DATA")):
        raise CannotMeasure("CONVOY_DATA is not set: set it to the folder that contains photos/.")
    return Path(data) / "photos"


def phone_photo(
    image: Image.Image,
    size: tuple[int, int],
    seed: int,
    noise: float = NOISE,
    quality: int = QUALITY,
    *,
    progressive: bool = False,
) -> bytes:
    """Returns a JPEG of this size. The image is cropped to the aspect ratio of the size."""
    small = ImageOps.fit(image.convert("RGB"), _divided(size), Image.Resampling.LANCZOS).filter(SHARPEN)
    large = small.resize(size, Image.Resampling.BICUBIC)
    noisy = ImageChops.add(large, _shifted_noise(size, seed, noise), offset=-_ZERO)
    file = io.BytesIO()
    noisy.save(file, "JPEG", quality=quality, progressive=progressive)
    return file.getvalue()


def write_photos(sources: list[Path], size: tuple[int, int], folder: Path) -> None:
    """Writes a photo of this size for each source. Raises CannotMeasure if there are no sources."""
    if not sources:
        raise CannotMeasure("There are no images from which to make photos.")
    for seed, source in enumerate(sources):
        with Image.open(source) as image:
            (folder / f"{seed:04}.jpg").write_bytes(phone_photo(image, size, seed))


def _divided(size: tuple[int, int]) -> tuple[int, int]:
    return max(1, size[0] // SHARPENED_DIVISOR), max(1, size[1] // SHARPENED_DIVISOR)


def _shifted_noise(size: tuple[int, int], seed: int, deviation: float) -> Image.Image:
    """Returns the same noise, shifted for each photo, because drawing 12 million normal numbers takes almost a
    second."""
    x, y = np.random.default_rng(seed).integers(0, size)
    return ImageChops.offset(_noise(size, deviation), int(x), int(y))


@cache
def _noise(size: tuple[int, int], deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(_ZERO, deviation, (size[1], size[0], 3))
    return Image.fromarray(np.rint(noise).astype(np.uint8))
