"""Resizes and crops pixels to model input, exactly as the manifest says.

The same code runs in the service and in training's evaluation. Knows no encoded images. Normalization is part of the
graph.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.model_store.manifest import Input, Preprocessing, ResizeRule

MAX_FULL_RESIZE_RATIO = 8
"""Up to this multiple of the input's pixels, an image is resized as a whole before its center is cropped, as in other
tools.

Above it, only the cropped part is computed, because an image of 1 x 65535 would become a huge one. The results differ
only by the rounding of Pillow's box to single precision: by one level of brightness in a few of 10,000 pixels.
"""
MIN_REDUCED_RATIO = 2
"""A JPEG is decoded at no less than this multiple of the size that it is resized to. The resize then averages so many
pixels that libjpeg's scaling makes hardly any difference."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in pixels."""
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def preprocess(
    pixels: NDArray[np.uint8], model_input: Input, preprocessing: Preprocessing, box: Box | None = None
) -> NDArray[np.uint8]:
    """Scales and crops one image to the model's input.

    `pixels` is uint8 (height, width, channels) of any height and width. `box` is the part of it that the image fills,
    by default all of it. Returns uint8 of the shape `model_input.shape`.
    """
    if box is None:
        box = (0, 0, pixels.shape[1], pixels.shape[0])
    size = scaled_size(box[2] - box[0], box[3] - box[1], model_input, preprocessing)
    if size == (pixels.shape[1], pixels.shape[0]) == (model_input.width, model_input.height):
        return pixels
    left = _crop_offset(size[0], model_input.width, preprocessing.resize_rule)
    top = _crop_offset(size[1], model_input.height, preprocessing.resize_rule)
    if not preprocessing.antialias:
        return _sample_neighbours(pixels, size, (left, top), model_input, preprocessing.interpolation == "nearest")
    image = Image.fromarray(pixels[..., 0] if model_input.channels == 1 else pixels)
    resampling = _RESAMPLING[preprocessing.interpolation]
    return np.asarray(_resize_and_crop(image, box, size, (left, top), model_input, resampling)).reshape(
        model_input.shape
    )


def min_jpeg_size(width: int, height: int, model_input: Input, preprocessing: Preprocessing) -> tuple[int, int]:
    """Returns the smallest width and height at which a JPEG of this size may be decoded before it is resized."""
    scaled_width, scaled_height = scaled_size(width, height, model_input, preprocessing)
    return MIN_REDUCED_RATIO * scaled_width, MIN_REDUCED_RATIO * scaled_height


def scaled_size(width: float, height: float, model_input: Input, preprocessing: Preprocessing) -> tuple[int, int]:
    """Returns width and height of the resized image before its center is cropped."""
    shorter = preprocessing.shorter
    if shorter is None:
        return model_input.width, model_input.height
    if preprocessing.resize_rule == "convoy":
        return round(width * shorter / min(width, height)), round(height * shorter / min(width, height))
    return int(width * shorter / min(width, height)), int(height * shorter / min(width, height))


def _crop_offset(size: int, input_size: int, rule: ResizeRule) -> int:
    return round((size - input_size) / 2) if rule == "torchvision" else (size - input_size) // 2


def _resize_and_crop(
    image: Image.Image,
    image_box: Box,
    size: tuple[int, int],
    offset: tuple[int, int],
    model_input: Input,
    resampling: Image.Resampling,
) -> Image.Image:
    """Resizes `image_box` to `size` and crops the input from `offset`. The manifest ensures that `size` covers it."""
    left, top = offset
    right, bottom = left + model_input.width, top + model_input.height
    if size[0] * size[1] <= MAX_FULL_RESIZE_RATIO * model_input.width * model_input.height:
        resized = image.resize(size, resampling, box=image_box)
        if resized.size == (model_input.width, model_input.height):
            return resized
        return resized.crop((left, top, right, bottom))
    scale_x, scale_y = (image_box[2] - image_box[0]) / size[0], (image_box[3] - image_box[1]) / size[1]
    box = (
        image_box[0] + left * scale_x,
        image_box[1] + top * scale_y,
        min(image_box[0] + right * scale_x, image.width),
        min(image_box[1] + bottom * scale_y, image.height),
    )
    return image.resize((model_input.width, model_input.height), resampling, box=box)


def _sample_neighbours(
    pixels: NDArray[np.uint8], size: tuple[int, int], offset: tuple[int, int], model_input: Input, nearest: bool
) -> NDArray[np.uint8]:
    """Resizes without antialiasing (bilinear or nearest), with pixel centers at one half as in TensorFlow."""
    y = (np.arange(model_input.height) + offset[1] + 0.5) * (pixels.shape[0] / size[1])
    x = (np.arange(model_input.width) + offset[0] + 0.5) * (pixels.shape[1] / size[0])
    if nearest:
        nearest_pixels: NDArray[np.uint8] = pixels[np.floor(y).astype(np.intp)][:, np.floor(x).astype(np.intp)]
        return nearest_pixels
    (above, below, row_weights), (before, behind, column_weights) = (
        _neighbours(y - 0.5, pixels.shape[0]),
        _neighbours(x - 0.5, pixels.shape[1]),
    )
    weights = column_weights[:, np.newaxis]
    first, second = (_mix(pixels[row][:, before], pixels[row][:, behind], weights) for row in (above, below))
    return np.rint(_mix(first, second, row_weights[:, np.newaxis, np.newaxis])).astype(np.uint8)


def _neighbours(
    positions: NDArray[np.float64], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Returns the indices of the two pixels around each position, and the weight of the second."""
    first = np.floor(positions)
    weights = (positions - first).astype(np.float32)
    return (
        np.clip(first, 0, count - 1).astype(np.intp),
        np.clip(first + 1, 0, count - 1).astype(np.intp),
        weights,
    )


def _mix(first: NDArray[Any], second: NDArray[Any], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    start = first.astype(np.float32)
    mixed: NDArray[np.float32] = start + (second.astype(np.float32) - start) * weights
    return mixed
