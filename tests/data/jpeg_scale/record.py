"""Records TensorFlow's pixels of a few JPEGs at scales 1/2, 1/4 and 1/8: `python -m tests.data.jpeg_scale.record`.

The JPEGs are drawn in code and stored together with the pixels, because encoders differ.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

FILE = Path(__file__).with_name("tensorflow.npz")


class Recorded(NamedTuple):
    """A JPEG and the scale at which it is decoded; `side` is the input size that causes this scale."""

    mode: str
    size: tuple[int, int]
    scale: int
    side: int
    options: dict[str, Any]


IMAGES = {
    "half": Recorded("RGB", (101, 67), 2, 16, {"subsampling": "4:2:0"}),
    "quarter": Recorded("RGB", (167, 203), 4, 20, {"subsampling": "4:2:0"}),
    "eighth": Recorded("RGB", (263, 241), 8, 15, {"subsampling": "4:2:0"}),
    "eighth, full chroma": Recorded("RGB", (263, 241), 8, 15, {"subsampling": "4:4:4"}),
    "quarter, progressive": Recorded("RGB", (167, 203), 4, 20, {"progressive": True}),
    "quarter, gray": Recorded("L", (167, 203), 4, 20, {}),
}


def scene(width: int, height: int) -> Image.Image:
    """Returns smooth waves with two sharp shapes, which differ between channels and are not symmetric."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 100 * np.sin(x / width * 9) * np.cos(y / height * 7)
    pixels = np.stack([waves, 255 * x / width, 255 * y / height], -1)
    pixels[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 6) ** 2] = (10, 240, 30)
    pixels[(x > 0.6 * width) & (x < 0.7 * width) & (y > 0.2 * height) & (y < 0.4 * height)] = (250, 10, 200)
    return Image.fromarray(pixels.astype(np.uint8))


def jpeg(name: str) -> bytes:
    with np.load(FILE) as recorded:
        return recorded[f"{name}.jpeg"].tobytes()


def main() -> None:
    import tensorflow as tf

    arrays = {}
    for name, image in IMAGES.items():
        file = io.BytesIO()
        scene(*image.size).convert(image.mode).save(file, "JPEG", quality=90, **image.options)
        arrays[f"{name}.jpeg"] = np.frombuffer(file.getvalue(), np.uint8)
        arrays[name] = tf.io.decode_jpeg(
            file.getvalue(), 3, ratio=image.scale, dct_method="INTEGER_ACCURATE", fancy_upscaling=True
        ).numpy()
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
