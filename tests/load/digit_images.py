"""Digits as PNG with labels known beforehand: real ones where CONVOY_DATA tells of MNIST, drawn ones otherwise.

Beforehand: the model that will serve has classified them in this process, without a server, and those that it gets
wrong are left out. From then on a wrong label is the service's fault.
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

MIN_KNOWN_FRACTION = 0.9  # of the digits; a model that knows fewer is not one for digits


class Digit(NamedTuple):
    """One image and what it shows."""

    png: bytes
    label: str


def source() -> str:
    """Where `digits` come from, for reports."""
    return "real digits (MNIST's test set)" if os.environ.get("CONVOY_DATA") else "digits drawn in code"


def digits(count: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Pixels, uint8 (count, 28, 28, 1), and labels: MNIST's test digits from the first one on, or drawn ones."""
    data_folder = os.environ.get("CONVOY_DATA")
    if not data_folder:
        kinds = [number % 10 for number in range(count)]
        return np.stack([draw_digit(kind, number // 10) for number, kind in enumerate(kinds)]), list(map(str, kinds))
    from training.data.datasets import mnist

    test = mnist.load(Path(data_folder)).test
    return test.images[:count], [str(label) for label in test.labels[:count]]


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """One image, uint8 (height, width, 1 or 3), as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def known_digits(count: int, models: Path, model: str) -> list[Digit]:
    """Those of `count` digits that the model gets right. Raises CannotMeasure when they are too few."""
    pixels, labels = digits(count)
    candidates = [Digit(as_png(p), label) for p, label in zip(pixels, labels, strict=True)]
    predicted = LocalModel(models, model).predict_labels([digit.png for digit in candidates])
    known = [digit for digit, label in zip(candidates, predicted, strict=True) if digit.label == label]
    if len(known) < MIN_KNOWN_FRACTION * count:
        raise CannotMeasure(
            f"{model} in {models} knows {len(known)} of {count} {source()}, so that wrong answers could not be told "
            "from right ones. Name a model trained on digits with --model and --models."
        )
    return known


def save_digits(known: Sequence[Digit], file: Path) -> None:
    file.write_text(json.dumps([[base64.b64encode(digit.png).decode(), digit.label] for digit in known]))


def read_digits(file: Path) -> list[Digit]:
    return [Digit(base64.b64decode(png), label) for png, label in json.loads(file.read_text())]
