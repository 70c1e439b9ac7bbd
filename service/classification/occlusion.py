"""Which pixels mattered? Cover the image patch by patch, and see how much less sure the network becomes.

Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013, section 4.2. Pure arrays: the forward
passes are somebody else's.
"""

import math

import numpy as np
from numpy.typing import NDArray

MAX_ACROSS = 14
MIN_ACROSS = 3
MIN_PROBABILITY = 1e-12

Patch = tuple[slice, slice]


def patches(height: int, width: int, most: int) -> list[Patch]:
    """At most `most` square-like patches in rows, as many across as down, each overlapping half of its neighbours.

    Empty where not even 3 x 3 are allowed.
    """
    across = min(MAX_ACROSS, height, width, math.isqrt(max(0, most)))
    if across < min(MIN_ACROSS, height, width):
        return []
    rows, columns = _spans(height, across), _spans(width, across)
    return [(row, column) for row in rows for column in columns]


def occluded(image: NDArray[np.uint8], where: list[Patch]) -> NDArray[np.uint8]:
    """The image itself, then a copy for each patch with that patch in the image's mean colour.

    `image` is uint8 (height, width, channels); returns uint8 (1 + patches, height, width, channels). The mean, and not
    grey or black, because it is the colour that says least in photos and digits alike.
    """
    mean = np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
    copies = np.repeat(image[np.newaxis], len(where) + 1, axis=0)
    for copy, patch in zip(copies[1:], where, strict=True):
        copy[patch] = mean
    return copies


def importance(
    probabilities: NDArray[np.float32], index: int, where: list[Patch], height: int, width: int
) -> NDArray[np.float32]:
    """How much each pixel speaks for class `index`, float32 (height, width): the mean, over the patches that cover it,
    of the log-odds that the class loses with the patch. Negative where covering makes the network surer.

    `probabilities`, (1 + patches, classes), are the answers to `occluded`. Log-odds, because the probability of a sure
    answer hardly moves.
    """
    odds = log_odds(probabilities, index)
    total, covers = np.zeros((height, width)), np.zeros((height, width))
    for lost, patch in zip(odds[0] - odds[1:], where, strict=True):
        total[patch] += lost
        covers[patch] += 1
    return (total / np.maximum(covers, 1)).astype(np.float32)


def log_odds(probabilities: NDArray[np.float32], index: int) -> NDArray[np.float64]:
    """log(p / (1 - p)) of one class, (n,). 1 - p is the sum of the others: near 1, float32 cannot hold p well."""
    mine = probabilities[:, index].astype(np.float64)
    others = np.delete(probabilities, index, axis=1).sum(axis=1, dtype=np.float64)
    floor = MIN_PROBABILITY
    return np.log(np.maximum(mine, floor)) - np.log(np.maximum(others, floor))  # type: ignore[no-any-return]


def _spans(length: int, count: int) -> list[slice]:
    """`count` spans over `length` pixels, their centres evenly spread, each twice as long as their distance."""
    step = length / count
    starts = [max(0, math.floor((i - 0.5) * step)) for i in range(count)]
    ends = [min(length, math.ceil((i + 1.5) * step)) for i in range(count)]
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]
