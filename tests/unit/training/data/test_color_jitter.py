"""Color jitter: each strength changes the named property within its bounds, drawn from the random generator."""

import numpy as np
import pytest

from tests.support.images import random_pixels
from training.data.color_jitter import LUMA, changes_color, color_jitter
from training.recipes.base import Recipe

COUNT = 60


def recipe(**fields: float) -> Recipe:
    return Recipe(name="any", dataset="any", architecture="resnet18", **fields)


def changed(images: np.ndarray, seed: int = 1, **fields: float) -> np.ndarray:
    result = color_jitter(images, recipe(**fields), np.random.default_rng(seed))
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    return result


def plain(*rgb: int) -> np.ndarray:
    return np.broadcast_to(np.array(rgb, np.uint8), (COUNT, 4, 4, len(rgb))).copy()


def test_brightness_multiplies_every_pixel_alike() -> None:
    ratios = changed(plain(50, 100, 20), brightness=0.5)[:, 0, 0] / np.array([50, 100, 20])
    assert (np.ptp(ratios, axis=1) < 0.05).all()
    assert 0.49 < ratios.min() < 0.6
    assert 1.4 < ratios.max() < 1.51


def test_contrast_keeps_the_mean_and_scales_what_differs_from_it() -> None:
    images = plain(100, 100, 100)
    images[:, :2] = 140
    result = changed(images, contrast=0.5)[..., 0].astype(float)
    np.testing.assert_allclose(result.mean(axis=(1, 2)), 120, atol=0.6)
    span = np.ptp(result.reshape(COUNT, -1), axis=1)
    assert 19 <= span.min() < 25
    assert 55 < span.max() <= 61


def test_saturation_moves_colors_from_and_to_their_own_gray() -> None:
    gray = float(LUMA @ [120, 100, 60])
    distances = (changed(plain(120, 100, 60), saturation=1.0)[:, 0, 0] - gray) / (np.array([120, 100, 60]) - gray)
    assert distances.min() > -0.2
    assert distances[:, 2].min() < 0.2
    assert distances[:, 2].max() > 1.8
    np.testing.assert_array_equal(changed(plain(80, 80, 80), saturation=1.0), plain(80, 80, 80))


def test_lighting_shifts_a_whole_image_mostly_along_gray() -> None:
    shifts = changed(plain(128, 128, 128), lighting=0.1)[:, 0, 0].astype(float) - 128
    assert (changed(plain(128, 128, 128), lighting=0.1) == changed(plain(128, 128, 128), lighting=0.1)[:, :1, :1]).all()
    assert 1.5 < shifts.std() < 7  # 255 * 0.1 * 0.2175 * 0.58 = 3.2 of the first axis
    assert np.corrcoef(shifts[:, 0], shifts[:, 1])[0, 1] > 0.9


@pytest.mark.parametrize("channels", [1, 3])
def test_everything_at_once_on_any_pixels(channels: int) -> None:
    images = np.stack([random_pixels(9, 7, channels, seed) for seed in range(COUNT)])
    strengths = {"brightness": 0.4, "contrast": 0.4}
    if channels == 3:
        strengths |= {"saturation": 0.4, "lighting": 0.1}
    before = images.copy()
    first, again, other = (changed(images, seed, **strengths) for seed in (3, 3, 4))
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_values_beyond_white_are_white() -> None:
    assert changed(plain(250, 250, 250), brightness=1.0).max() == 255


def test_nothing_is_requested_by_default() -> None:
    assert not changes_color(recipe())
    assert changes_color(recipe(lighting=0.1))
