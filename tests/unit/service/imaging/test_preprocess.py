"""Images of any size become the model's input as straightforward Pillow code would make them."""

import time
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from service.imaging.preprocess import prepare
from service.model_store.manifest import Input, Preprocessing
from tests.unit.service.pixels import noise

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic", "lanczos")
SIDES = (1, 2, 7, 28, 33, 99, 255, 500)
SIZES = [(height, width) for height in SIDES for width in SIDES]
# height and width of the input, and the length that the shorter side is scaled to
TARGETS = [(28, 28, 28), (28, 28, 32), (33, 24, 33), (13, 17, 40), (224, 224, 256)]


def input_of(height: int, width: int, channels: int = 3) -> Input:
    return Input(height=height, width=width, channels=channels)  # type: ignore[arg-type]


def shorter_side(length: int, interpolation: Interpolation = "bilinear") -> Preprocessing:
    return Preprocessing(resize="shorter", shorter=length, interpolation=interpolation)


def reference(pixels: NDArray[np.uint8], to: Input, how: Preprocessing) -> NDArray[np.uint8]:
    """Scales the whole image, then cuts out of the middle."""
    image = Image.fromarray(pixels[..., 0] if to.channels == 1 else pixels)
    method = Image.Resampling[how.interpolation.upper()]
    if how.shorter is None:
        return np.asarray(image.resize((to.width, to.height), method)).reshape(to.shape)
    scale = how.shorter / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), method)
    left, top = (image.width - to.width) // 2, (image.height - to.height) // 2
    return np.asarray(image.crop((left, top, left + to.width, top + to.height))).reshape(to.shape)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """Place in the image as colour: red from left to right, green from top to bottom, blue across."""
    y, x = np.mgrid[0:height, 0:width] / [[[max(1, height - 1)]], [[max(1, width - 1)]]]
    return np.stack([x * 255, y * 255, (x + y) * 127], -1).round().astype(np.uint8)


def largest_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("height", "width", "_"), TARGETS)
def test_squash_is_pillows_resize(height: int, width: int, _: int, interpolation: Interpolation, channels: int) -> None:
    to, how = input_of(height, width, channels), Preprocessing(interpolation=interpolation)
    for size in SIZES:
        pixels = noise(*size, channels)
        assert largest_difference(prepare(pixels, to, how), reference(pixels, to, how)) == 0, size


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("height", "width", "length"), TARGETS)
def test_shorter_is_scaling_everything_then_cutting(
    height: int, width: int, length: int, interpolation: Interpolation
) -> None:
    to, how = input_of(height, width), shorter_side(length, interpolation)
    for size in SIZES:
        if max(size) <= 20 * min(size):  # beyond, the reference takes seconds
            pixels = smooth(*size)
            assert largest_difference(prepare(pixels, to, how), reference(pixels, to, how)) <= 2, size


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("height", "width", "length"), [(28, 28, 32), (33, 24, 33), (224, 224, 256)])
def test_shorter_is_the_reference_to_the_bit_for_usual_images(
    height: int, width: int, length: int, interpolation: Interpolation
) -> None:
    to, how = input_of(height, width), shorter_side(length, interpolation)
    for size in [(99, 130), (375, 500), (500, 333), (281, 500), (28, 28)]:
        pixels = noise(*size)
        np.testing.assert_array_equal(prepare(pixels, to, how), reference(pixels, to, how))


@pytest.mark.parametrize(("height", "width", "length"), TARGETS)
def test_shorter_keeps_the_detail_of_the_reference(height: int, width: int, length: int) -> None:
    to, how = input_of(height, width), shorter_side(length)
    for size in SIZES:
        if max(size) <= 20 * min(size):
            pixels = noise(*size)
            assert largest_difference(prepare(pixels, to, how), reference(pixels, to, how)) <= 2, size


@pytest.mark.parametrize(("height", "width", "length"), TARGETS)
def test_shorter_with_nearest_takes_pixels_at_most_one_beside_the_references(
    height: int, width: int, length: int
) -> None:
    to, how = input_of(height, width), shorter_side(length, "nearest")
    for size in [(27, 33), (99, 255), (255, 99), (200, 200)]:
        y, x = np.mgrid[0 : size[0], 0 : size[1]]
        places = np.stack([y, x, x], -1).astype(np.uint8)
        assert largest_difference(prepare(places, to, how), reference(places, to, how)) <= 1, size


@pytest.mark.parametrize(
    "how", [Preprocessing(), shorter_side(28), *(Preprocessing(interpolation=i) for i in INTERPOLATIONS)]
)
def test_a_image_that_fits_is_not_touched(how: Preprocessing) -> None:
    pixels = noise(28, 28, 1)
    assert prepare(pixels, input_of(28, 28, 1), how) is pixels


def test_a_image_of_the_inputs_size_is_still_scaled_when_the_middle_is_wanted() -> None:
    pixels = smooth(28, 28)
    found = prepare(pixels, input_of(28, 28), shorter_side(56))
    assert 60 <= found[..., 0].min() < found[..., 0].max() <= 195  # the middle half of 0 .. 255


def test_scaling_down_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    found = prepare(stripes, input_of(8, 8, 1), Preprocessing())
    assert 120 <= found.min() <= found.max() <= 135


@pytest.mark.parametrize("how", [Preprocessing(), shorter_side(256)], ids=["squash", "shorter"])
@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1)], ids=["wide", "high"])
def test_an_extreme_shape_stays_cheap(size: tuple[int, int], how: Preprocessing) -> None:
    pixels = noise(*size)
    started_s = time.thread_time()
    assert prepare(pixels, input_of(224, 224), how).shape == (224, 224, 3)
    assert time.thread_time() - started_s < 1


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    target=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    channels=st.sampled_from([1, 3]),
    more=st.none() | st.integers(0, 40),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
@settings(max_examples=300, deadline=None)
def test_any_image_fits_any_input(
    size: tuple[int, int], target: tuple[int, int], channels: int, more: int | None, interpolation: Interpolation
) -> None:
    to = input_of(*target, channels)
    how = (
        Preprocessing(interpolation=interpolation) if more is None else shorter_side(max(target) + more, interpolation)
    )
    grey = np.full((*size, channels), 77, np.uint8)
    found = prepare(grey, to, how)
    assert found.dtype == np.uint8
    assert found.shape == to.shape
    assert (found == 77).all()  # nothing from outside the image
