"""Labels as probabilities, float32 (n, classes): one-hot, smoothed, and mixed together with their images.

Splits and the order of images belong to `batches.py`.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.float32]


def label_rows(classes: int, smoothing: float = 0.0) -> Labels:
    """Returns one row per class, (classes, classes): y (1 - smoothing) + smoothing / classes, where y is the one-hot
    label.

    Szegedy et al. 2015, "Rethinking the inception architecture", section 7. Equals Keras' `label_smoothing`.
    """
    one_hot = np.eye(classes, dtype=np.float32)
    return one_hot * np.float32(1 - smoothing) + np.float32(smoothing / classes)


def mixup(images: Images, labels: Labels, alpha: float, random: Generator) -> tuple[Images, Labels]:
    """Mixes every image, uint8 (n, height, width, channels), with another of the batch, and the labels accordingly.

    The weights are drawn from Beta(alpha, alpha). Zhang et al. 2017, "mixup".
    """
    partner = random.permutation(len(images))
    weight = random.beta(alpha, alpha, (len(images), 1)).astype(np.float32)
    image_weight = weight.reshape(-1, 1, 1, 1)
    mixed = np.rint(images + image_weight * (images[partner].astype(np.float32) - images))
    return mixed.astype(np.uint8), labels + weight * (labels[partner] - labels)


def cutmix(images: Images, labels: Labels, alpha: float, random: Generator) -> tuple[Images, Labels]:
    """Pastes a box of another image of the batch into every image, and mixes their labels by the area of the box.

    The box has the image's proportions and an expected area of 1 - w, with w from Beta(alpha, alpha); its center is
    uniform over the image, and any area beyond an edge is cut off. Yun et al. 2019, "CutMix", algorithm 1, with one
    draw per image.
    """
    count, height, width, _ = images.shape
    partner = random.permutation(count)
    side = np.sqrt(1 - random.beta(alpha, alpha, (count, 1)))
    rows, columns = (_inside_box(length, side, random) for length in (height, width))
    box = rows[:, :, None] & columns[:, None, :]
    weight = box.mean(axis=(1, 2), dtype=np.float32)[:, None]
    mixed = np.where(box[..., None], images[partner], images)
    return mixed, labels + weight * (labels[partner] - labels)


def _inside_box(length: int, side: NDArray[np.float64], random: Generator) -> NDArray[np.bool_]:
    """Returns a mask, (count, length), of the positions along an axis inside a box of `side`, a fraction of
    `length`."""
    center = random.integers(0, length, side.shape)
    half = np.rint(side * length).astype(np.int64) // 2
    position = np.arange(length)
    return (position >= center - half) & (position < center + half)
