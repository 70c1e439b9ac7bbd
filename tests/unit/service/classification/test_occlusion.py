"""Occlusion finds the decisive pixels within its limit of model runs."""

import numpy as np
import pytest

from service.classification.occlusion import importance, log_odds, occlude_patches, patch_grid

BRIGHT = (5, 9)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def one_pixel_network(images: np.ndarray) -> np.ndarray:
    """A network whose probability of class 1 grows with the brightness of one pixel."""
    brightness = images[:, BRIGHT[0], BRIGHT[1], 0].astype(np.float64) / 16
    return softmax(np.stack([np.zeros(len(images)), brightness, np.full(len(images), 3.0)], axis=1))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 8), (32, 20), (224, 224), (3, 5), (1, 1)])
def test_patches_cover_every_pixel_and_stay_within(height: int, width: int) -> None:
    covered = np.zeros((height, width), int)
    grid = patch_grid(height, width, 196)
    for patch in grid:
        assert covered[patch].size
        covered[patch] += 1
    assert covered.min() >= 1
    assert len(grid) <= 196


@pytest.mark.parametrize(
    ("max_patches", "expected"), [(196, 196), (10_000, 196), (100, 100), (99, 81), (9, 9), (8, 0), (0, 0)]
)
def test_no_more_patches_than_allowed(max_patches: int, expected: int) -> None:
    assert len(patch_grid(28, 28, max_patches)) == expected


def test_copies_are_the_image_but_for_one_patch_in_its_mean_color() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    patches = patch_grid(12, 12, 9)
    original, *copies = occlude_patches(image, patches)
    np.testing.assert_array_equal(original, image)
    mean = np.rint(image.mean(axis=(0, 1)))
    for copy, patch in zip(copies, patches, strict=True):
        assert (copy[patch] == mean).all()
        untouched = np.ones((12, 12), bool)
        untouched[patch] = False
        np.testing.assert_array_equal(copy[untouched], image[untouched])


def test_the_pixel_that_decides_is_the_peak_for_its_class_and_the_bottom_for_another() -> None:
    image = np.zeros((14, 14, 1), np.uint8)
    image[BRIGHT] = 255
    patches = patch_grid(14, 14, 196)
    probabilities = one_pixel_network(occlude_patches(image, patches))
    for_class, against = (importance(probabilities, index, patches, 14, 14) for index in (1, 2))
    assert for_class.shape == (14, 14)
    assert np.unravel_index(for_class.argmax(), for_class.shape) == BRIGHT
    assert np.unravel_index(against.argmin(), against.shape) == BRIGHT
    assert np.abs(for_class[:3]).max() == 0  # pixels far away have no effect


def test_log_odds_distinguish_probabilities_near_one() -> None:
    sure, less_sure = np.array([[1.0, 1e-9, 0.0]], np.float32), np.array([[1.0, 1e-7, 0.0]], np.float32)
    assert log_odds(sure, 0)[0] - log_odds(less_sure, 0)[0] == pytest.approx(np.log(100), rel=1e-4)
    assert np.isfinite(log_odds(np.array([[1.0, 0.0]], np.float32), 0)).all()


def test_independent_labels_have_odds_of_their_own() -> None:
    probabilities = np.array([[0.75, 0.9, 0.9]], np.float32)
    assert log_odds(probabilities, 0, "sigmoid")[0] == pytest.approx(np.log(3), rel=1e-6)
    assert log_odds(probabilities, 0)[0] == pytest.approx(np.log(0.75 / 1.8), rel=1e-6)
