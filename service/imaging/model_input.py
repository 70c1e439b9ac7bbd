"""Converts encoded images to model input, exactly as the manifest says, for service, batch jobs and training.

Knows no model and no HTTP.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.imaging.decode import OpenedImage, open_image, read_pixels
from service.imaging.fast_png import decode_simple_png
from service.imaging.limits import DecodeLimits
from service.imaging.preprocess import min_jpeg_size, preprocess
from service.model_store.manifest import Input, Preprocessing


def read_model_input(
    encoded: bytes, model_input: Input, preprocessing: Preprocessing, limits: DecodeLimits
) -> NDArray[np.uint8]:
    """Decodes and preprocesses an image. Returns uint8 of the shape `model_input.shape`.

    Raises BadImage, UnsupportedImage or ImageTooLarge.
    """
    if (pixels := decode_simple_png(encoded, model_input.channels, limits.max_pixels)) is not None:
        return preprocess(pixels, model_input, preprocessing)
    return read_opened(open_for_model(encoded, model_input, preprocessing, limits), model_input, preprocessing)


def open_for_model(
    encoded: bytes, model_input: Input, preprocessing: Preprocessing, limits: DecodeLimits
) -> OpenedImage:
    """Opens an image at the scale that the model needs. Raises BadImage, UnsupportedImage or ImageTooLarge."""
    if not preprocessing.jpeg_scale:
        return open_image(encoded, limits)
    return open_image(encoded, limits, partial(min_jpeg_size, model_input=model_input, preprocessing=preprocessing))


def read_opened(opened: OpenedImage, model_input: Input, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decodes and preprocesses an image that `open_for_model` returned. Raises BadImage."""
    pixels = read_pixels(opened.image, model_input.channels, preprocessing.background)
    return preprocess(pixels, model_input, preprocessing, opened.box)
