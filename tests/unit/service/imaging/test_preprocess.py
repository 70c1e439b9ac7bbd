"""Images of any size are converted to the model's input with the same result as straightforward Pillow code."""

import time
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from service.imaging.preprocess import preprocess
from service.model_store.manifest import Input, Preprocessing
from tests.unit.service.pixels import noise_image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic", "lanczos")
SIDES = (1, 2, 7, 28, 33, 99, 255, 500)
SIZES = [(height, width) for height in SIDES for width in SIDES]
# Height and width of the input, and the length to which the shorter side is scaled.
TARGETS = [(28, 28, 28), (28, 28, 32), (33, 24, 33), (13, 17, 40), (224, 224, 256)]


def input_of(height: int, width: int, channels: int = 3) -> Input:
    return Input(height=height, width=width, channels=channels)  # type: ignore[arg-type]


def shorter_side(length: int, interpolation: Interpolation = "bilinear") -> Preprocessing:
    return Preprocessing(resize="shorter", shorter=length, interpolation=interpolation)


def reference(pixels: NDArray[np.uint8], model_input: Input, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Scales the whole image, then crops the center."""
    image = Image.fromarray(pixels[..., 0] if model_input.channels == 1 else pixels)
    resampling = Image.Resampling[preprocessing.interpolation.upper()]
    if preprocessing.shorter is None:
        return np.asarray(image.resize((model_input.width, model_input.height), resampling)).reshape(model_input.shape)
    scale = preprocessing.shorter / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), resampling)
    left, top = (image.width - model_input.width) // 2, (image.height - model_input.height) // 2
    return np.asarray(image.crop((left, top, left + model_input.width, top + model_input.height))).reshape(
        model_input.shape
    )


def gradient_image(height: int, width: int) -> NDArray[np.uint8]:
    """Returns an image that encodes positions as color: red from left to right, green from top to bottom, blue
    across."""
    y, x = np.mgrid[0:height, 0:width] / [[[max(1, height - 1)]], [[max(1, width - 1)]]]
    return np.stack([x * 255, y * 255, (x + y) * 127], -1).round().astype(np.uint8)


def difference_to_reference(pixels: NDArray[np.uint8], model_input: Input, preprocessing: Preprocessing) -> int:
    """Returns the largest difference of a value between `preprocess` and the reference."""
    actual, expected = preprocess(pixels, model_input, preprocessing), reference(pixels, model_input, preprocessing)
    assert actual.shape == expected.shape
    return int(np.abs(actual.astype(int) - expected).max())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("height", "width", "_"), TARGETS)
def test_squash_equals_the_resize_of_pillow(
    height: int, width: int, _: int, interpolation: Interpolation, channels: int
) -> None:
    model_input, preprocessing = input_of(height, width, channels), Preprocessing(interpolation=interpolation)
    for size in SIZES:
        pixels = noise_image(*size, channels)
        assert difference_to_reference(pixels, model_input, preprocessing) == 0, size


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("height", "width", "length"), TARGETS)
def test_shorter_equals_scaling_then_cropping(
    height: int, width: int, length: int, interpolation: Interpolation
) -> None:
    model_input, preprocessing = input_of(height, width), shorter_side(length, interpolation)
    for size in SIZES:
        if max(size) <= 20 * min(size):  # for larger ratios, the reference takes seconds
            pixels = gradient_image(*size)
            assert difference_to_reference(pixels, model_input, preprocessing) <= 2, size


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("height", "width", "length"), [(28, 28, 32), (33, 24, 33), (224, 224, 256)])
def test_shorter_equals_the_reference_exactly_for_usual_images(
    height: int, width: int, length: int, interpolation: Interpolation
) -> None:
    model_input, preprocessing = input_of(height, width), shorter_side(length, interpolation)
    for size in [(99, 130), (375, 500), (500, 333), (281, 500), (28, 28)]:
        pixels = noise_image(*size)
        np.testing.assert_array_equal(
            preprocess(pixels, model_input, preprocessing), reference(pixels, model_input, preprocessing)
        )


@pytest.mark.parametrize(("height", "width", "length"), TARGETS)
def test_shorter_keeps_the_detail_of_the_reference(height: int, width: int, length: int) -> None:
    model_input, preprocessing = input_of(height, width), shorter_side(length)
    for size in SIZES:
        if max(size) <= 20 * min(size):
            pixels = noise_image(*size)
            assert difference_to_reference(pixels, model_input, preprocessing) <= 2, size


@pytest.mark.parametrize(("height", "width", "length"), TARGETS)
def test_shorter_with_nearest_is_at_most_one_pixel_off(height: int, width: int, length: int) -> None:
    model_input, preprocessing = input_of(height, width), shorter_side(length, "nearest")
    for size in [(27, 33), (99, 255), (255, 99), (200, 200)]:
        y, x = np.mgrid[0 : size[0], 0 : size[1]]
        coordinates = np.stack([y, x, x], -1).astype(np.uint8)
        assert difference_to_reference(coordinates, model_input, preprocessing) <= 1, size


@pytest.mark.parametrize(
    "preprocessing", [Preprocessing(), shorter_side(28), *(Preprocessing(interpolation=i) for i in INTERPOLATIONS)]
)
def test_an_image_that_fits_is_not_touched(preprocessing: Preprocessing) -> None:
    pixels = noise_image(28, 28, 1)
    assert preprocess(pixels, input_of(28, 28, 1), preprocessing) is pixels


def test_an_image_of_the_input_size_is_scaled_if_a_crop_is_set() -> None:
    pixels = gradient_image(28, 28)
    pixels = preprocess(pixels, input_of(28, 28), shorter_side(56))
    assert 60 <= pixels[..., 0].min() < pixels[..., 0].max() <= 195  # the middle half of 0 .. 255


def test_scaling_down_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    pixels = preprocess(stripes, input_of(8, 8, 1), Preprocessing())
    assert 120 <= pixels.min() <= pixels.max() <= 135


@pytest.mark.parametrize("preprocessing", [Preprocessing(), shorter_side(256)], ids=["squash", "shorter"])
@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1)], ids=["wide", "high"])
def test_an_extreme_shape_stays_cheap(size: tuple[int, int], preprocessing: Preprocessing) -> None:
    pixels = noise_image(*size)
    started_s = time.thread_time()
    assert preprocess(pixels, input_of(224, 224), preprocessing).shape == (224, 224, 3)
    assert time.thread_time() - started_s < 1


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    target_size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    channels=st.sampled_from([1, 3]),
    more=st.none() | st.integers(0, 40),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
@settings(max_examples=300, deadline=None)
def test_any_image_fits_any_input(
    size: tuple[int, int], target_size: tuple[int, int], channels: int, more: int | None, interpolation: Interpolation
) -> None:
    model_input = input_of(*target_size, channels)
    preprocessing = (
        Preprocessing(interpolation=interpolation)
        if more is None
        else shorter_side(max(target_size) + more, interpolation)
    )
    gray = np.full((*size, channels), 77, np.uint8)
    pixels = preprocess(gray, model_input, preprocessing)
    assert pixels.dtype == np.uint8
    assert pixels.shape == model_input.shape
    assert (pixels == 77).all()  # no pixels from outside the image
