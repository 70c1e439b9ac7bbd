"""Pixels to encode, and the expected result of decoding them."""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.integer]

HEIGHT, WIDTH = 11, 13  # odd, so that rows end within a byte and interlacing has ragged passes
MAX_PIXELS = 2_000_000
BLACK, WHITE = 0, 255


def random_samples(depth: int, count: int, height: int = HEIGHT, width: int = WIDTH) -> Array:
    return np.random.default_rng(depth).integers(0, 2**depth, (height, width, count))


def scale_to_8_bit(depth: int, values: Array) -> NDArray[np.float64]:
    """Scales samples of any depth to 0.0..255.0."""
    return values * 255 / (2**depth - 1)


def composite(pixels: NDArray[np.float64], alpha: NDArray[np.float64], background: int) -> NDArray[np.float64]:
    """Composites pixels (h, w, c) of 0..255 with alpha (h, w, 1) of 0..1 over a plain background."""
    return pixels * alpha + background * (1 - alpha)


def assert_pixels_close(
    decoded: NDArray[np.uint8], expected: NDArray[np.floating] | Array, tolerance: float = 1
) -> None:
    """Compares with a tolerance of 1, because the decoder truncates 16 bits to 8, while others round."""
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected.shape
    np.testing.assert_allclose(decoded.astype(np.float64), expected, rtol=0, atol=tolerance)


def encode_image(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def gradient_image(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Returns an image (h, w, 3) that lossy formats preserve well."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 4, 255 - y * 5, 40 + x + y], -1).astype(np.uint8)


def noise_image(height: int = HEIGHT, width: int = WIDTH, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def exif_bytes(orientation: int, order: str = "<", others: bytes = b"") -> bytes:
    """Returns a TIFF header and one directory: the orientation (SHORT), then `others` of 12 bytes each."""
    entry = struct.pack(f"{order}HHLHH", 0x0112, 3, 1, orientation, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HLH", 42, 8, 1 + len(others) // 12)
    return head + entry + others + bytes(4)
