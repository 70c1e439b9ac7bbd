"""Digits as PNG with known labels: MNIST's test set if CONVOY_DATA is set, otherwise digits drawn in code.

The served model first classifies the digits in this process, without a server. Digits that it classifies incorrectly
are left out, so a wrong label in the load test is always a fault of the service.
"""

import base64
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.bench.errors import CannotMeasure
from tests.bench.local_model import LocalModel
from tests.load.draw_digits import draw_digit

MIN_KNOWN_FRACTION = 0.9  # fraction of the digits; a model with a lower accuracy was not trained on digits


class Digit(NamedTuple):
    """An image and its label."""

    png: bytes
    label: str


def source() -> str:
    """Returns the source of `digits`, for reports."""
    return "real digits (MNIST's test set)" if os.environ.get("CONVOY_DATA") else "digits drawn in code"


def digits(count: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Returns pixels, uint8 (count, 28, 28, 1), and labels: MNIST's first test digits, or drawn digits."""
    data_folder = os.environ.get("CONVOY_DATA")
    if not data_folder:
        kinds = [number % 10 for number in range(count)]
        return np.stack([draw_digit(kind, number // 10) for number, kind in enumerate(kinds)]), list(map(str, kinds))
    from training.data.datasets import mnist

    test = mnist.load(Path(data_folder)).test
    return test.images[:count], [str(label) for label in test.labels[:count]]


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes an image, uint8 (height, width, 1 or 3), as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def known_digits(count: int, models: Path, model: str) -> list[Digit]:
    """Draws `count` digits and returns those that the model classifies correctly. Raises CannotMeasure if they are too
    few."""
    pixels, labels = digits(count)
    candidates = [Digit(as_png(p), label) for p, label in zip(pixels, labels, strict=True)]
    predicted = LocalModel(models, model).predict_labels([digit.png for digit in candidates])
    known = [digit for digit, label in zip(candidates, predicted, strict=True) if digit.label == label]
    if len(known) < MIN_KNOWN_FRACTION * count:
        raise CannotMeasure(
            f"{model} in {models} classifies only {len(known)} of {count} {source()} correctly. Use --model and "
            "--models to specify a model that was trained on digits."
        )
    return known


def save_digits(known: Sequence[Digit], file: Path) -> None:
    file.write_text(json.dumps([[base64.b64encode(digit.png).decode(), digit.label] for digit in known]))


def read_digits(file: Path) -> list[Digit]:
    return [Digit(base64.b64decode(png), label) for png, label in json.loads(file.read_text())]
