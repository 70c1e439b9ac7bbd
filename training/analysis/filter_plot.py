"""Draws the kernels of a network's first layer side by side, as one image."""

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

MAX_FILTERS = 64
FILTER_SIDE_PX = 64
"""Approximate width of each kernel in the image."""
GAP_PX = 2
BACKGROUND = 255


def first_layer_filters(model: keras.Model) -> NDArray[np.floating] | None:
    """Returns the first layer's kernels, (count, height, width, 1 or 3); None if they cannot be drawn as images.

    A fully connected first layer has one kernel per unit, as large as the image.
    """
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            kernels = layer.get_weights()[0]
        elif isinstance(layer, layers.Dense):
            kernels = layer.get_weights()[0].reshape(*model.input_shape[1:], -1)
        else:
            continue
        return np.moveaxis(kernels, -1, 0)[:MAX_FILTERS] if kernels.shape[2] in (1, 3) else None
    return None


def draw_filters(kernels: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Draws the kernels in a nearly square grid, uint8 (height, width, 1 or 3).

    Middle gray is a weight of 0. Each kernel has its own scale: its largest weight is black or white.
    """
    max_weight = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    shades = np.rint(127.5 + 127.5 * kernels / np.maximum(max_weight, 1e-12)).astype(np.uint8)
    factor = max(1, FILTER_SIDE_PX // shades.shape[2])
    shades = shades.repeat(factor, axis=1).repeat(factor, axis=2)
    shades = np.pad(shades, ((0, 0), (0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=BACKGROUND)
    columns = int(np.ceil(len(shades) ** 0.5))
    blanks = -len(shades) % columns
    grid = np.pad(shades, ((0, blanks), (0, 0), (0, 0), (0, 0)), constant_values=BACKGROUND)
    count, height, width, channels = grid.shape
    rows = grid.reshape(count // columns, columns, height, width, channels)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, columns * width, channels)
