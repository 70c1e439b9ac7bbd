"""Occlusion: covers the image patch by patch, and measures how much the network's confidence falls.

Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013, section 4.2. Works only with arrays: the
caller runs the network.
"""

import math

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Activation

MAX_PATCHES_PER_SIDE = 14
MIN_PATCHES_PER_SIDE = 3
MIN_PROBABILITY = 1e-12

Patch = tuple[slice, slice]


def patch_grid(height: int, width: int, max_patches: int) -> list[Patch]:
    """Returns at most `max_patches` patches, the same number across and down. Adjacent patches overlap by
    half of their width or height.
    Returns an empty list if not even 3 x 3 patches are allowed.
    """
    across = min(MAX_PATCHES_PER_SIDE, height, width, math.isqrt(max(0, max_patches)))
    if across < min(MIN_PATCHES_PER_SIDE, height, width):
        return []
    rows, columns = _spans(height, across), _spans(width, across)
    return [(row, column) for row in rows for column in columns]


def occlude_patches(image: NDArray[np.uint8], patches: list[Patch]) -> NDArray[np.uint8]:
    """Returns the image itself, and then a copy per patch in which that patch has the image's mean color.

    `image` is uint8 (height, width, channels); returns uint8 (1 + patches, height, width, channels). The mean color
    adds less information of its own than gray or black, both in photos and in digits.
    """
    mean = np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
    copies = np.repeat(image[np.newaxis], len(patches) + 1, axis=0)
    for copy, patch in zip(copies[1:], patches, strict=True):
        copy[patch] = mean
    return copies


def importance(
    probabilities: NDArray[np.float32],
    index: int,
    patches: list[Patch],
    height: int,
    width: int,
    activation: Activation = "softmax",
) -> NDArray[np.float32]:
    """Returns the evidence that each pixel provides for class `index`, float32 (height, width).

    The evidence is the mean, over the patches that contain the pixel, of the decrease in the log-odds of the class when
    that patch has the mean color. It is negative if the network is then more confident.

    `probabilities`, (1 + patches, classes), are the network's outputs for `occlude_patches`. The measure is log-odds,
    because the probability of a confident prediction hardly changes.
    """
    odds = log_odds(probabilities, index, activation)
    total, cover_count = np.zeros((height, width)), np.zeros((height, width))
    for decrease, patch in zip(odds[0] - odds[1:], patches, strict=True):
        total[patch] += decrease
        cover_count[patch] += 1
    return (total / np.maximum(cover_count, 1)).astype(np.float32)


def log_odds(probabilities: NDArray[np.float32], index: int, activation: Activation = "softmax") -> NDArray[np.float64]:
    """Returns log(p / (1 - p)) of one class, float64 (n,).

    If the probabilities sum to 1, 1 - p is computed as the sum of the other probabilities, because float32 is imprecise
    near 1.
    """
    own = probabilities[:, index].astype(np.float64)
    if activation == "sigmoid":
        others = 1 - own
    else:
        others = np.delete(probabilities, index, axis=1).sum(axis=1, dtype=np.float64)
    return np.log(np.maximum(own, MIN_PROBABILITY)) - np.log(np.maximum(others, MIN_PROBABILITY))


def _spans(length: int, count: int) -> list[slice]:
    """Returns `count` spans over `length` pixels. Each is twice as long as the distance between neighbors. The first
    and the last end at the border."""
    step = length / count
    starts = [max(0, math.floor((i - 0.5) * step)) for i in range(count)]
    ends = [min(length, math.ceil((i + 1.5) * step)) for i in range(count)]
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]
