"""Augmentation: what comes out is really a moved or mirrored picture, and chance alone decides which."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import random_pixels
from training.augment import augment, flip, shift
from training.recipes.base import Recipe

COUNT = 40


def pictures(channels: int = 3) -> np.ndarray:
    return np.stack([random_pixels(9, 7, channels, seed) for seed in range(COUNT)])


@settings(deadline=None)  # a busy machine is no failure
@given(pixels=st.integers(1, 4), fill=st.sampled_from(["black", "reflect"]), seed=st.integers(0, 2**32))
def test_a_shifted_picture_is_a_crop_of_the_padded_one(pixels: int, fill: str, seed: int) -> None:
    originals = pictures()
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
    originals = pictures()
    flipped = flip(originals, np.random.default_rng(0))
    same = (flipped == originals).all(axis=(1, 2, 3))
    mirrored = (flipped == originals[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 0.25 * COUNT < mirrored.sum() < 0.75 * COUNT


@pytest.mark.parametrize("fields", [{}, {"shift_px": 2}, {"flip": True}, {"shift_px": 2, "flip": True}])
def test_a_recipe_gets_what_it_asks_for_and_the_originals_stay(fields: dict) -> None:
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", **fields)
    originals, before = pictures(), pictures()
    result = augment(originals, recipe, np.random.default_rng(3))
    np.testing.assert_array_equal(originals, before)
    assert np.array_equal(result, before) == (not fields)


def test_the_same_generator_gives_the_same_pictures() -> None:
    recipe = Recipe(name="any", dataset="mnist", architecture="lenet5", shift_px=2, flip=True)
    first, second, third = (augment(pictures(), recipe, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
