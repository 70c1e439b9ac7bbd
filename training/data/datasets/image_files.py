"""Reads, crops and resizes images for training.

Images for evaluation are decoded and preprocessed by the service's functions, so that training and serving agree.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import ConvoyError
from service.imaging.decode import decode
from service.imaging.limits import DecodeLimits
from service.imaging.model_input import read_model_input
from service.model_store.manifest import Input, Preprocessing
from training.errors import TrainingError, system_error

MAX_PIXELS = 100_000_000
LIMITS = DecodeLimits(MAX_PIXELS)

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a crop, in pixels."""
Boxes = Callable[[int, int, int], Box]
"""Maps the index of an image in its batch, its width and its height to its crop."""


@dataclass(frozen=True)
class InputSpec:
    """The input of a network: image size and preprocessing."""

    input: Input
    preprocessing: Preprocessing


def prepare_image_file(encoded: bytes, model_input: Input, preprocessing: Preprocessing) -> Pixels:
    """Converts an image file to a graph's input, uint8 (height, width, channels). Raises the decoder's errors."""
    return read_model_input(encoded, model_input, preprocessing, LIMITS)


def read_prepared_file(path: Path, model_input: Input, preprocessing: Preprocessing) -> Pixels:
    """Reads and converts an image file like `prepare_image_file`. Raises a TrainingError that names the file."""
    with _naming(path):
        return prepare_image_file(path.read_bytes(), model_input, preprocessing)


def read_image_file(path: Path, channels: int, background: int) -> Pixels:
    """Decodes all pixels of an image file. Raises a TrainingError that names the file."""
    with _naming(path):
        return decode(path.read_bytes(), channels, background, MAX_PIXELS)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise system_error(f"{path} cannot be read: {error.strerror}.", error) from error
    except ConvoyError as error:
        raise TrainingError(f"{path} is not a usable image: {error.message}") from error


def crop_and_resize(pixels: Pixels, box: Box, height: int, width: int) -> Pixels:
    """Scales a crop of an image, uint8 (any, any, 1 or 3), to (height, width, same). Shrinking is antialiased."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(resized).reshape(height, width, pixels.shape[2])


def resize_images(images: Pixels, side_px: int) -> Pixels:
    """Scales images, uint8 (n, height, width, 1 or 3), to squares of `side_px` pixels. Shrinking is antialiased."""
    _, height, width, _ = images.shape
    return np.stack([crop_and_resize(image, (0, 0, width, height), side_px, side_px) for image in images])


def shrink_to_shorter_side(pixels: Pixels, shorter: int) -> Pixels:
    """Scales an image down to a shorter side of `shorter` pixels. Smaller images do not change."""
    height, width, _ = pixels.shape
    scale = shorter / min(height, width)
    if scale >= 1:
        return pixels
    return crop_and_resize(pixels, (0, 0, width, height), round(height * scale), round(width * scale))
