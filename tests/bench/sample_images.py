"""The images that the benchmarks send: digits for models with 28x28 gray pixels, photographs for others."""

import os
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.bench.errors import CannotMeasure
from tests.bench.local_model import LocalModel
from tests.load import digit_images

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
DIGIT = (28, 28, 1)


class Samples(NamedTuple):
    """Encoded images, the same images as model input, and the model's predictions."""

    encoded: list[bytes]
    tensors: NDArray[np.uint8]
    """(n, height, width, channels)"""
    classes: list[int]
    """Most probable class of each image, computed with onnxruntime alone."""
    source: str


def load_samples(model: LocalModel, count: int, folder: Path | None) -> Samples:
    """Loads `count` samples, with repetitions if there are fewer images. Raises CannotMeasure if there are no
    images."""
    if folder is None and model.shape == DIGIT:
        encoded = [digit_images.as_png(pixels) for pixels in digit_images.digits(count)[0]]
        source = digit_images.source()
    else:
        folder = folder or _photo_folder(model)
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGES)[:count]
        encoded = [file.read_bytes() for file in files]
        source = f"{len(files)} photographs"
    if not encoded:
        raise CannotMeasure(f"{folder} contains no images.")
    tensors = np.stack([model.tensor(image) for image in encoded])
    classes = model.predict(tensors)
    repeated = list(islice(cycle(range(len(encoded))), count))
    return Samples([encoded[i] for i in repeated], tensors[repeated], [classes[i] for i in repeated], source)


def _photo_folder(model: LocalModel) -> Path:
    data_folder = os.environ.get("CONVOY_DATA")
    if not data_folder:
        raise CannotMeasure(f"{model.name} takes {model.shape}: specify a folder of images with --images.")
    return Path(data_folder) / "photos"
