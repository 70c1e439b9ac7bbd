"""Images with different predictions, so that a response to the wrong client is detected."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.bench.local_model import LocalModel
from tests.load.digit_images import as_png
from tests.load.draw_digits import draw_digit

MIN_DIFFERENCE = 0.01  # of some class's probability; other batch sizes cause differences of 1/10,000 of this


class DistinguishableImages(NamedTuple):
    """Encoded images, the same images as tensors, (n, height, width, 1), and version 1's probabilities, (n,
    classes)."""

    pngs: list[bytes]
    tensors: NDArray[np.uint8]
    probabilities: NDArray[np.float32]

    @classmethod
    def of(cls, models: Path, model: str, count: int) -> "DistinguishableImages":
        """Draws pairs of digits over each other, for which the model's probabilities are ambiguous and differ from
        image to image."""
        local = LocalModel(models, model, threads=1)
        pixels: list[NDArray[np.uint8]] = []
        answers = np.empty((0, len(local.labels)), np.float32)
        for candidate in _blends():
            answer = local.run(candidate[np.newaxis])
            if np.abs(answers - answer).max(-1, initial=0).min(initial=1) > MIN_DIFFERENCE:
                pixels.append(candidate)
                answers = np.concatenate([answers, answer])
            if len(pixels) == count:
                break
        pngs = [as_png(one) for one in pixels]
        return cls(pngs, np.stack([local.tensor(png) for png in pngs]), answers)


def _blends() -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng(17)
    while True:
        first, second = (draw_digit(int(random.integers(10)), int(random.integers(1 << 30))) for _ in range(2))
        part = random.uniform(0.3, 0.7)
        yield (part * first + (1 - part) * second).astype(np.uint8)
