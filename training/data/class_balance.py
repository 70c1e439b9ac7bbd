"""Two corrections for classes of unequal size: weights in the loss, and an order that draws all classes equally often.

Independent of images and recipes.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.splits import Indices

Labels = NDArray[np.float32]


def class_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Returns a weight per class, (classes,): images / (classes * images of the class), scikit-learn's "balanced".

    The mean of the weights over all images is 1. Every class needs at least one image.
    """
    return (len(labels) / (classes * np.bincount(labels, minlength=classes))).astype(np.float32)


def split_weights(weighted_labels: Labels) -> tuple[Labels, NDArray[np.float32]]:
    """Splits label rows weighted by class into rows that sum to 1, (n, classes), and a weight per image, (n,).

    Mixed images (`soft_labels`) mix the weights together with the labels, so that the loss is the mixture of both
    images' weighted losses.
    """
    weights = weighted_labels.sum(axis=1)
    return weighted_labels / weights[:, None], weights


def balanced_order(indices: Indices, labels: NDArray[np.int64], random: Generator) -> Indices:
    """Draws len(indices) indices in random order, with the same number per class (plus or minus one).

    A large class contributes a random subset of its images. The images of a small class repeat, each equally often
    (plus or minus one). `labels` are the classes of `indices`.
    """
    # The first classes get one more image if the number is not divisible.
    present = random.permutation(np.unique(labels))
    counts = len(indices) // len(present) + (np.arange(len(present)) < len(indices) % len(present))
    parts = [_draw(indices[labels == number], count, random) for number, count in zip(present, counts, strict=True)]
    return random.permutation(np.concatenate(parts))


def _draw(indices: Indices, count: int, random: Generator) -> Indices:
    repeats = -(-count // len(indices))
    return np.concatenate([random.permutation(indices) for _ in range(repeats)])[:count]
