"""Adds noise to test images, to measure a network's robustness. Training does not use this module."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.imaging.visualization import encode_png
from training.data.datasets.base import ArraySplit, Dataset, Split
from training.data.datasets.image_files import Boxes
from training.errors import TrainingError

SEED = 0


@dataclass(frozen=True)
class NoisySplit:
    """A split with Gaussian noise of standard deviation `sigma` on every pixel in 0..1, clipped to 0..1.

    The noise depends only on an image's index, so that all networks get the same noisy images.
    """

    original: Split
    sigma: float

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.original.shape

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.original.labels

    def __len__(self) -> int:
        return len(self.original)

    def read_images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        noise = np.stack([np.random.default_rng((SEED, int(i))).normal(0, self.sigma, self.shape) for i in indices])
        return np.clip(self.original.read_images(indices) + np.rint(255 * noise), 0, 255).astype(np.uint8)

    def encoded_image(self, index: int) -> bytes:
        return encode_png(self.read_images(np.array([index]))[0])

    def read_crops(self, indices: NDArray[np.int64], boxes: Boxes, side_px: int | None = None) -> NDArray[np.uint8]:
        noisy = ArraySplit(self.read_images(indices), self.labels[indices])
        return noisy.read_crops(np.arange(len(indices)), boxes, side_px)

    def find_unreadable(self, indices: NDArray[np.int64]) -> Mapping[int, str]:
        return self.original.find_unreadable(indices)

    def without(self, indices: Sequence[int]) -> "NoisySplit":
        return NoisySplit(self.original.without(indices), self.sigma)

    def digest(self, indices: NDArray[np.int64]) -> str:
        return hashlib.sha256(f"{self.original.digest(indices)} {self.sigma}".encode()).hexdigest()


def with_noise(dataset: Dataset, sigma: float) -> Dataset:
    """Returns the data set with noise on its test images; 0 adds none. Raises TrainingError for a negative `sigma`."""
    if sigma < 0:
        raise TrainingError(f"--noise {sigma:g} is negative: use a standard deviation such as 0.5, for pixels in 0..1.")
    return replace(dataset, test=NoisySplit(dataset.test, sigma)) if sigma else dataset
