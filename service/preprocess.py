"""Pixels to model input, exactly as the manifest says. The same code serves, and feeds training's evaluation."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.manifest import Input, Preprocessing

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def prepare(pixels: NDArray[np.uint8], to: Input, how: Preprocessing) -> NDArray[np.uint8]:
    """Scales and crops one picture to the model's input.

    `pixels` is uint8 (any height, any width, to.channels); returns uint8 (to.height, to.width, to.channels). Scaling
    down is antialiased (Pillow's resampling). Normalisation is in the graph.
    """
    height, width, _ = pixels.shape
    box = _whole(width, height) if how.shorter is None else _centre(width, height, to, how.shorter)
    if (height, width) == (to.height, to.width) and box == _whole(width, height):
        return pixels
    image = Image.fromarray(pixels[..., 0] if to.channels == 1 else pixels)
    scaled = image.resize((to.width, to.height), _FILTERS[how.interpolation], box=box)
    return np.asarray(scaled).reshape(to.shape)


def _whole(width: int, height: int) -> tuple[float, float, float, float]:
    return 0.0, 0.0, float(width), float(height)


def _centre(width: int, height: int, to: Input, shorter: int) -> tuple[float, float, float, float]:
    """The part of the picture that is seen after scaling its shorter side to `shorter` and cutting out the middle.

    Equal but for rounding to scaling everything and then cropping, but a picture of 1 x 65535 never becomes a huge one
    on the way. The manifest sees to it that `shorter` covers the input.
    """
    scaled_width = round(width * shorter / min(width, height))
    scaled_height = round(height * shorter / min(width, height))
    left, top = (scaled_width - to.width) // 2, (scaled_height - to.height) // 2
    per_x, per_y = width / scaled_width, height / scaled_height
    return left * per_x, top * per_y, (left + to.width) * per_x, (top + to.height) * per_y
