"""Decoded pixels equal those of TensorFlow's decoders (libjpeg-turbo, libpng, giflib, libwebp)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.imaging.decode import decode
from tests.reliability.malformed_requests.valid_inputs import images
from tests.unit.service.pixels import MAX_PIXELS, WHITE, assert_pixels_close, composite

pytestmark = pytest.mark.slow  # importing TensorFlow takes longer than all the rest
TURNS = {"jpeg progressive turned": -1, "webp alpha": 1}  # quarter turns to the left: EXIF orientations 6 and 8
TRANSPARENT = ("alpha", "rgba", "palette", "transparent")
KINDS = images()
LOSSY = 2  # levels by which two inverse transforms or two conversions from CMYK may differ


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow")


def reference(tf: Any, name: str, file: bytes) -> NDArray[np.float64]:
    """Returns pixels (h, w, 3), 0..255, upright and over white."""
    channels = 4 if any(word in name for word in TRANSPARENT) else 3
    pixels = _decoded(tf, name.split()[0], file, channels).astype(np.float64)
    if pixels.shape[2] == 4:
        pixels = composite(pixels[..., :3], pixels[..., 3:] / 255, WHITE)
    return np.rot90(pixels, TURNS.get(name, 0))


def _decoded(tf: Any, kind: str, file: bytes, channels: int) -> NDArray[np.uint8]:
    if kind == "jpeg":
        return tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True).numpy()
    if kind == "png":
        return tf.io.decode_png(file, channels).numpy()
    if kind == "webp":
        decoded = tf.io.decode_webp(file, channels).numpy()
        return decoded[0] if decoded.ndim == 4 else decoded
    if kind == "gif":
        return tf.io.decode_gif(file).numpy()[0]
    return tf.io.decode_bmp(file).numpy()


def is_read_by_others(name: str) -> bool:
    """giflib leaves transparent pixels black. TensorFlow reads neither BMPs with a palette nor animated WebPs."""
    return name not in ("gif", "bmp palette", "bmp 1 bit", "webp animated")


@pytest.mark.parametrize("name", [name for name in KINDS if is_read_by_others(name)])
def test_odd_but_valid_images(tf: Any, name: str) -> None:
    decoded = decode(KINDS[name], 3, WHITE, MAX_PIXELS)
    assert_pixels_close(decoded, reference(tf, name, KINDS[name]), LOSSY if name.startswith(("jpeg", "webp")) else 1)


def test_real_photographs(tf: Any, data_dir: Path) -> None:
    files = sorted((data_dir / "photos").glob("*.JPEG"))
    assert files
    for file in files:
        data = file.read_bytes()
        assert_pixels_close(decode(data, 3, WHITE, MAX_PIXELS), reference(tf, "jpeg", data), LOSSY)
