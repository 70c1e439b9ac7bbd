"""Images are resized exactly as in torchvision, timm and Keras, compared with recorded pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.imaging.preprocess import preprocess
from service.model_store.manifest import Input, Preprocessing
from tests.data.resizing.record import CROP, SHORTER, SIZES, noise

RECORDED = Path(__file__).parents[3] / "data" / "resizing"
MODEL_INPUT = Input(height=CROP, width=CROP, channels=3)
SHORTER_THEN_CROP = {"resize": "shorter", "shorter": SHORTER, "resize_rule": "torchvision"}
PREPROCESSING = {
    "torchvision": Preprocessing(**SHORTER_THEN_CROP),
    "timm": Preprocessing(**SHORTER_THEN_CROP, interpolation="bicubic"),
    "keras": Preprocessing(antialias=False, resize_rule="keras"),
}


def recorded(name: str) -> dict[str, np.ndarray]:
    path = RECORDED / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} was not recorded")
    with np.load(path) as archive:
        return dict(archive)


@pytest.mark.parametrize("name", PREPROCESSING)
def test_pixels_are_those_of_the_library(name: str) -> None:
    expected = recorded(name)
    assert set(expected) == {f"{height}x{width}" for height, width in SIZES}
    for height, width in SIZES:
        actual = preprocess(noise(height, width), MODEL_INPUT, PREPROCESSING[name])
        difference = np.abs(actual.astype(int) - expected[f"{height}x{width}"])
        # Keras' floating-point numbers are rounded here, and halves may be rounded up or down.
        assert difference.max() <= (1 if name == "keras" else 0), (height, width)
        assert (difference > 0).mean() < 0.01


@given(st.integers(20, 90), st.integers(20, 90), st.integers(8, 18), st.integers(8, 18))
def test_torchvision_truncates_the_long_side_and_rounds_the_offset_half_to_even(
    height: int, width: int, crop_height: int, crop_width: int
) -> None:
    pixels = noise(height, width)
    short = 20
    is_tall = width <= height
    size = (short, int(short * height / width)) if is_tall else (int(short * width / height), short)
    top, left = round((size[1] - crop_height) / 2.0), round((size[0] - crop_width) / 2.0)
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    expected = resized[top : top + crop_height, left : left + crop_width]
    if size[0] * size[1] > 8 * crop_height * crop_width:
        return  # only the visible part is computed
    preprocessing = Preprocessing(resize="shorter", shorter=short, resize_rule="torchvision")
    model_input = Input(height=crop_height, width=crop_width, channels=3)
    np.testing.assert_array_equal(preprocess(pixels, model_input, preprocessing), expected)


@pytest.mark.parametrize(
    ("rule", "size", "top"), [("convoy", (20, 34), 3), ("torchvision", (20, 33), 2), ("keras", (20, 33), 2)]
)
def test_each_rule_rounds_the_long_side_and_the_offset_differently(rule: str, size: tuple[int, int], top: int) -> None:
    """60 x 101 pixels are scaled to a shorter side of 20, so the other side is 33.67. 28 rows are cropped from 34 or 33
    rows."""
    pixels = noise(101, 60)
    whole = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
    preprocessing = Preprocessing(resize="shorter", shorter=28, resize_rule=rule, interpolation="nearest")
    assert preprocessing.shorter is not None
    actual = preprocess(
        pixels, Input(height=28, width=17, channels=3), preprocessing.model_copy(update={"shorter": 20})
    )
    left = round(1.5) if rule == "torchvision" else 1
    np.testing.assert_array_equal(actual, whole[top : top + 28, left : left + 17])


@pytest.mark.parametrize("channels", [1, 3])
def test_without_antialias_a_smaller_image_keeps_single_pixels(channels: int) -> None:
    """Every third pixel in each direction is white. These are the pixels at the center of each sampled area."""
    pixels = np.zeros((30, 30, channels), np.uint8)
    pixels[1::3, 1::3] = 255
    model_input = Input(height=10, width=10, channels=channels)
    for interpolation in ("nearest", "bilinear"):
        sharp = Preprocessing(antialias=False, interpolation=interpolation)
        np.testing.assert_array_equal(preprocess(pixels, model_input, sharp), np.full((10, 10, channels), 255))
    assert preprocess(pixels, model_input, Preprocessing()).max() < 128
