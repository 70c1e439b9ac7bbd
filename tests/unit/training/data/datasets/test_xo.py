"""Generated X/O images are reproducible, varied, and match their labels."""

import json
from pathlib import Path

import numpy as np

from training.data.datasets import load, xo

GOLDEN = json.loads((Path(__file__).parents[4] / "golden" / "xo_toy.json").read_text())


def test_the_lesson_shows_the_printed_x() -> None:
    np.testing.assert_array_equal(xo.lesson_image()[..., 0] / 127.5 - 1, GOLDEN["image"])


def test_images_are_reproducible_and_half_are_xs() -> None:
    first, second = load("xo"), load("xo")
    np.testing.assert_array_equal(first.train.images, second.train.images)
    for split, count in ((first.train, 4000), (first.test, 1000)):
        assert split.images.shape == (count, 24, 24, 1)
        assert split.images.dtype == np.uint8
        assert np.bincount(split.labels).tolist() == [count // 2, count // 2]
    assert not {image.tobytes() for image in first.train.images} & {image.tobytes() for image in first.test.images}


def test_an_x_crosses_where_an_o_is_empty() -> None:
    """There is ink at the center of mass of an X, but not of an O."""
    test = xo.load(None).test
    ink = test.images[..., 0] / 255
    rows, columns = np.mgrid[:24, :24]
    mass = ink.sum(axis=(1, 2))
    row = np.rint((ink * rows).sum(axis=(1, 2)) / mass).astype(int)
    column = np.rint((ink * columns).sum(axis=(1, 2)) / mass).astype(int)
    at_center = np.array(
        [image[r - 1 : r + 2, c - 1 : c + 2].max() for image, r, c in zip(ink, row, column, strict=True)]
    )
    is_x = test.labels == xo.LABELS.index("X")
    assert (at_center[is_x] > 0.5).mean() > 0.99
    assert (at_center[~is_x] < 0.5).mean() > 0.99


def test_images_vary_in_position_scale_rotation_and_stroke_width() -> None:
    ink = xo.load(None).train.images[..., 0] / 255
    left, right = ink.max(axis=1).argmax(axis=1), 23 - ink.max(axis=1)[:, ::-1].argmax(axis=1)
    area = ink.sum(axis=(1, 2))
    assert np.ptp(left) >= 8
    assert np.percentile(right - left, 95) > 1.5 * np.percentile(right - left, 5)
    assert np.percentile(area, 95) > 2.5 * np.percentile(area, 5)


def test_strokes_have_the_requested_width() -> None:
    """The area of a circle that is not moved or rotated equals its outline times its stroke width."""
    across, down = np.meshgrid(np.arange(24) - 11.5, np.arange(24) - 11.5)
    distance = xo._distance_from_ellipse(across[None], down[None], np.array([[[8.0]]]), np.array([[[8.0]]]))
    assert np.abs(np.clip(2 / 2 + 0.5 - distance, 0, 1).sum() / (2 * np.pi * 8) - 2) < 0.05
