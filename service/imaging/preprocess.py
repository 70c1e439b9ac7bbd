"""Pixels to model input, exactly as the manifest says.

The same code runs in the service and in training's evaluation. Knows no encoded images; normalization is in the graph.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.model_store.manifest import Input, Preprocessing

MAX_FULL_RESIZE_RATIO = 8
"""An image is resized as a whole before its center is cropped, as other tools do it, up to this multiple of the input.

Above that, only the visible part is computed, so that an image of 1 x 65535 never becomes a huge one on the way. The
results are equal except for the rounding of Pillow's box to single precision: a level of brightness in few of 10,000
pixels.
"""
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def preprocess(pixels: NDArray[np.uint8], model_input: Input, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Scales and crops one image to the model's input.

    `pixels` is uint8 (height, width, channels) of any height and width; returns uint8 of the shape
    `model_input.shape`. Downscaling is antialiased (Pillow's resampling).
    """
    height, width, _ = pixels.shape
    shorter = preprocessing.shorter
    size = (model_input.width, model_input.height) if shorter is None else _scaled_size(width, height, shorter)
    if size == (width, height) == (model_input.width, model_input.height):
        return pixels
    image = Image.fromarray(pixels[..., 0] if model_input.channels == 1 else pixels)
    resampling = _RESAMPLING[preprocessing.interpolation]
    return np.asarray(_resize_and_crop(image, size, model_input, resampling)).reshape(model_input.shape)


def _scaled_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    return round(width * shorter / min(width, height)), round(height * shorter / min(width, height))


def _resize_and_crop(
    image: Image.Image, size: tuple[int, int], model_input: Input, resampling: Image.Resampling
) -> Image.Image:
    """Resizes the image to `size` and crops its center. The manifest ensures that `size` covers the input."""
    left, top = (size[0] - model_input.width) // 2, (size[1] - model_input.height) // 2
    right, bottom = left + model_input.width, top + model_input.height
    if size[0] * size[1] <= MAX_FULL_RESIZE_RATIO * model_input.width * model_input.height:
        resized = image.resize(size, resampling)
        if resized.size == (model_input.width, model_input.height):
            return resized
        return resized.crop((left, top, right, bottom))
    scale_x, scale_y = image.width / size[0], image.height / size[1]
    box = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    return image.resize((model_input.width, model_input.height), resampling, box=box)
