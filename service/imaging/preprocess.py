"""Pixels to model input, exactly as the manifest says. The same code serves, and feeds training's evaluation."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.model_store.manifest import Input, Preprocessing

WHOLE_UP_TO = 8
"""An image is scaled whole before its middle is cut out, as others do it, while that is at most so many inputs large.

Beyond, only the part is computed that is seen, so that an image of 1 x 65535 never becomes a huge one on the way. That
is equal but for the rounding of Pillow's box to single precision: a level of brightness in few of 10,000 pixels.
"""
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def prepare(pixels: NDArray[np.uint8], to: Input, how: Preprocessing) -> NDArray[np.uint8]:
    """Scales and crops one image to the model's input.

    `pixels` is uint8 (any height, any width, to.channels); returns uint8 (to.height, to.width, to.channels). Scaling
    down is antialiased (Pillow's resampling). Normalisation is in the graph.
    """
    height, width, _ = pixels.shape
    scaled = (to.width, to.height) if how.shorter is None else _scaled(width, height, how.shorter)
    if scaled == (width, height) == (to.width, to.height):
        return pixels
    image = Image.fromarray(pixels[..., 0] if to.channels == 1 else pixels)
    return np.asarray(_middle(image, scaled, to, _FILTERS[how.interpolation])).reshape(to.shape)


def _scaled(width: int, height: int, shorter: int) -> tuple[int, int]:
    return round(width * shorter / min(width, height)), round(height * shorter / min(width, height))


def _middle(image: Image.Image, scaled: tuple[int, int], to: Input, method: Image.Resampling) -> Image.Image:
    """The image at the size `scaled`, and of that the middle. The manifest sees to it that it covers the input."""
    left, top = (scaled[0] - to.width) // 2, (scaled[1] - to.height) // 2
    right, bottom = left + to.width, top + to.height
    if scaled[0] * scaled[1] <= WHOLE_UP_TO * to.width * to.height:
        whole = image.resize(scaled, method)
        return whole if whole.size == (to.width, to.height) else whole.crop((left, top, right, bottom))
    per_x, per_y = image.width / scaled[0], image.height / scaled[1]
    return image.resize((to.width, to.height), method, box=(left * per_x, top * per_y, right * per_x, bottom * per_y))
