"""Occlusion finds the pixels that decide, and costs no more than it is allowed."""

import numpy as np
import pytest

from service.classification.occlusion import importance, log_odds, occluded, patches

BRIGHT = (5, 9)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def looks_at(images: np.ndarray) -> np.ndarray:
    """A network that is class 1 the surer, the brighter one pixel is."""
    brightness = images[:, BRIGHT[0], BRIGHT[1], 0].astype(np.float64) / 16
    return softmax(np.stack([np.zeros(len(images)), brightness, np.full(len(images), 3.0)], axis=1))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 8), (32, 20), (224, 224), (3, 5), (1, 1)])
def test_patches_cover_every_pixel_and_stay_within(height: int, width: int) -> None:
    covered = np.zeros((height, width), int)
    found = patches(height, width, 196)
    for patch in found:
        assert covered[patch].size
        covered[patch] += 1
    assert covered.min() >= 1
    assert len(found) <= 196


@pytest.mark.parametrize(("most", "number"), [(196, 196), (10_000, 196), (100, 100), (99, 81), (9, 9), (8, 0), (0, 0)])
def test_no_more_patches_than_allowed(most: int, number: int) -> None:
    assert len(patches(28, 28, most)) == number


def test_copies_are_the_image_but_for_one_patch_in_its_mean_colour() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    where = patches(12, 12, 9)
    whole, *copies = occluded(image, where)
    np.testing.assert_array_equal(whole, image)
    mean = np.rint(image.mean(axis=(0, 1)))
    for copy, patch in zip(copies, where, strict=True):
        assert (copy[patch] == mean).all()
        untouched = np.ones((12, 12), bool)
        untouched[patch] = False
        np.testing.assert_array_equal(copy[untouched], image[untouched])


def test_the_pixel_that_decides_is_the_peak_for_its_class_and_the_bottom_for_another() -> None:
    image = np.zeros((14, 14, 1), np.uint8)
    image[BRIGHT] = 255
    where = patches(14, 14, 196)
    answers = looks_at(occluded(image, where))
    for_it, against = (importance(answers, index, where, 14, 14) for index in (1, 2))
    assert for_it.shape == (14, 14)
    assert np.unravel_index(for_it.argmax(), for_it.shape) == BRIGHT
    assert np.unravel_index(against.argmin(), against.shape) == BRIGHT
    assert np.abs(for_it[:3]).max() == 0  # far from it nothing matters


def test_a_sure_answer_still_moves() -> None:
    sure, less = np.array([[1.0, 1e-9, 0.0]], np.float32), np.array([[1.0, 1e-7, 0.0]], np.float32)
    assert log_odds(sure, 0)[0] - log_odds(less, 0)[0] == pytest.approx(np.log(100), rel=1e-4)
    assert np.isfinite(log_odds(np.array([[1.0, 0.0]], np.float32), 0)).all()
