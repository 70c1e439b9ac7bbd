"""Augmentation returns correctly shifted, mirrored and erased images, drawn from the random generator alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.images import random_pixels
from training.data.augment import augment, cutout, erase, flip, random_crop_boxes, scaled_to_side, shift
from training.recipes.base import Recipe

COUNT = 40


def images(channels: int = 3) -> np.ndarray:
    return np.stack([random_pixels(9, 7, channels, seed) for seed in range(COUNT)])


@settings(deadline=None)  # a busy machine must not cause a failure
@given(pixels=st.integers(1, 4), fill=st.sampled_from(["black", "reflect"]), seed=st.integers(0, 2**32))
def test_a_shifted_image_is_a_crop_of_the_padded_one(pixels: int, fill: str, seed: int) -> None:
    originals = images()
    moved = shift(originals, pixels, fill, np.random.default_rng(seed))
    assert moved.shape == originals.shape
    assert moved.dtype == np.uint8
    for original, result in zip(originals, moved, strict=True):
        margins = ((pixels, pixels), (pixels, pixels), (0, 0))
        padded = np.pad(original, margins, mode="reflect" if fill == "reflect" else "constant")
        crops = [padded[y : y + 9, x : x + 7] for y in range(2 * pixels + 1) for x in range(2 * pixels + 1)]
        assert any((crop == result).all() for crop in crops)


def test_shifts_reach_every_offset_up_to_the_limit_equally() -> None:
    dot = np.zeros((9000, 5, 5, 1), np.uint8)
    dot[:, 2, 2] = 255
    moved = shift(dot, 1, "black", np.random.default_rng(1))[..., 0]
    counts = (moved == 255).sum(axis=0)
    assert counts.sum() == 9000
    assert (counts[1:4, 1:4] > 850).all()


def test_flip_mirrors_about_half() -> None:
    originals = images()
    flipped = flip(originals, np.random.default_rng(0))
    same = (flipped == originals).all(axis=(1, 2, 3))
    mirrored = (flipped == originals[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 0.25 * COUNT < mirrored.sum() < 0.75 * COUNT


def test_a_cut_out_square_is_anywhere_and_other_pixels_are_unchanged() -> None:
    white = np.full((4000, 9, 7, 3), 255, np.uint8)
    holes = (cutout(white, 3, (0.2, 0.4, 0.6), np.random.default_rng(1)) == np.rint([51, 102, 153])).all(axis=3)
    sizes = holes.sum(axis=(1, 2))
    assert set(sizes) == {4, 6, 9}  # in a corner, at an edge, within
    assert (sizes == 9).mean() == pytest.approx(7 * 5 / 63, abs=0.05)
    tops = holes.any(axis=2).argmax(axis=1)
    assert set(tops) == set(range(8))
    originals = images()
    result = cutout(originals, 4, (0.0,), np.random.default_rng(2))
    kept = (result == originals).all(axis=3)
    assert (result[~kept] == 0).all()
    assert (~kept).sum(axis=(1, 2)).max() <= 16


def test_a_rectangle_of_about_half_the_images_becomes_noise() -> None:
    """Zhong et al. 2017: 2 to 40% of the area, aspect ratios of 0.3 to 1 / 0.3, values from 0 to 255."""
    gray = np.full((3000, 20, 20, 3), 44, np.uint8)
    result = erase(gray, 0.5, np.random.default_rng(1))
    changed = (result != gray).any(axis=3)
    erased = changed.any(axis=(1, 2))
    assert erased.mean() == pytest.approx(0.5, abs=0.03)
    heights, widths = changed.any(axis=2)[erased].sum(axis=1), changed.any(axis=1)[erased].sum(axis=1)
    shares = heights * widths / 400
    assert (shares > 0.01).all()
    assert (shares < 0.44).all()
    assert shares.mean() == pytest.approx(0.21, abs=0.02)
    assert (widths / heights).min() < 0.5 < 2 < (widths / heights).max()
    for mask, height, width in zip(changed[erased][:50], heights, widths, strict=False):
        top, left = mask.any(axis=1).argmax(), mask.any(axis=0).argmax()
        assert mask[top : top + height, left : left + width].mean() > 0.95
    noise = result[changed]
    assert noise.mean() == pytest.approx(127.5, abs=1)
    assert {noise.min(), noise.max()} == {0, 255}
    np.testing.assert_array_equal(erase(gray, 0.0, np.random.default_rng(1)), gray)


def test_pixels_of_a_recipe_shrink_with_the_images() -> None:
    recipe = Recipe(
        name="any",
        dataset="mnist",
        architecture="resnet9",
        progressive_side_px=(8, 24, 32),
        shift_px=4,
        cutout_px=8,
    )
    for side, shift_px, cutout_px in ((32, 4, 8), (24, 3, 6), (8, 1, 2)):
        scaled = scaled_to_side(recipe, side)
        assert (scaled.shift_px, scaled.cutout_px) == (shift_px, cutout_px)


@settings(deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400), seed=st.integers(0, 2**32))
def test_random_parts_lie_within_the_image_and_its_bounds(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = random_crop_boxes(1, (0.1, 0.9), (0.5, 2), np.random.default_rng(seed))(0, width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(width, height) > 40 and 0.6 < width / height < 1.7:
        assert 0.07 < (right - left) * (bottom - top) / (width * height) < 0.95
        assert 0.45 < (right - left) / (bottom - top) < 2.2


def test_random_parts_are_spread_evenly() -> None:
    boxes = random_crop_boxes(4000, (0.25, 1.0), (1.0, 1.0), np.random.default_rng(1))
    found = np.array([boxes(index, 100, 100) for index in range(4000)])
    fractions = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1]) / 1e4
    assert fractions.mean() == pytest.approx(0.625, abs=0.02)
    assert (found[:, 2] - found[:, 0] == found[:, 3] - found[:, 1]).all()
    middle = (found[:, 0] + found[:, 2]) / 2
    assert middle.mean() == pytest.approx(50, abs=1)


def test_without_a_fitting_crop_the_center_is_used() -> None:
    boxes = random_crop_boxes(1, (1.0, 1.0), (0.5, 2.0), np.random.default_rng(1))
    assert boxes(0, 100, 10) == (40, 0, 60, 10)
    assert boxes(0, 10, 100) == (0, 40, 10, 60)


AUGMENTATIONS = [
    {},
    {"shift_px": 2},
    {"flip": True},
    {"shift_px": 2, "flip": True},
    {"brightness": 0.4},
    {"contrast": 0.4, "saturation": 0.4},
    {"lighting": 0.1},
    {"cutout_px": 3},
    {"random_erasing": 0.5},
    {"randaugment": 2},
]


@pytest.mark.parametrize("fields", AUGMENTATIONS)
def test_only_configured_augmentations_change_copies_of_the_images(fields: dict) -> None:
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", **fields)
    originals, before = images(), images()
    result = augment(originals, recipe, np.random.default_rng(3))
    np.testing.assert_array_equal(originals, before)
    assert np.array_equal(result, before) == (not fields)


def test_the_same_generator_gives_the_same_images() -> None:
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", shift_px=2, flip=True)
    first, second, third = (augment(images(), recipe, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
