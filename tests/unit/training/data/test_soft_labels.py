"""Labels as probabilities are smoothed by the formula, and mixed like their images."""

import numpy as np
import pytest

from training.data.soft_labels import cutmix, label_rows, mixup

COUNT = 40


def test_rows_are_one_hot_or_smoothed() -> None:
    np.testing.assert_array_equal(label_rows(3), np.eye(3))
    np.testing.assert_allclose(label_rows(4, 0.2), 0.8 * np.eye(4) + 0.05, rtol=1e-6)


def test_mixed_images_and_labels_have_the_same_shares() -> None:
    grays = np.broadcast_to(np.arange(0, 240, 6, np.uint8)[:, None, None, None], (COUNT, 2, 2, 1))
    labels = np.eye(COUNT, dtype=np.float32)
    mixed, fractions = mixup(grays, labels, 1.0, np.random.default_rng(1))
    np.testing.assert_allclose(fractions.sum(axis=1), 1, atol=1e-6)
    assert ((fractions > 0).sum(axis=1) <= 2).all()
    np.testing.assert_allclose(mixed[:, 0, 0, 0], fractions @ grays[:, 0, 0, 0], atol=0.51)
    assert 0.3 < np.diag(fractions).mean() < 0.75
    largest_fraction = mixup(grays, labels, 0.05, np.random.default_rng(1))[1].max(axis=1)
    assert (largest_fraction > 0.95).mean() > 0.6


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_a_pasted_box_has_the_share_of_the_area_that_its_label_has(alpha: float) -> None:
    """Every image has a single value, so that pixels of the other image can be counted."""
    count = 64
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 24, 32, 3)).copy()
    labels = np.eye(count, dtype=np.float32)
    mixed, weights = cutmix(images, labels, alpha, np.random.default_rng(1))
    assert mixed.dtype == np.uint8
    for own, (image, row) in enumerate(zip(mixed[..., 0], weights, strict=True)):
        values, pixels = np.unique(image, return_counts=True)
        shares = np.zeros(count)
        shares[values] = pixels / image.size
        np.testing.assert_allclose(row, shares, atol=1e-6)
        assert set(values) - {own} == set(np.flatnonzero(row)) - {own}
        pasted = np.argwhere(image != own)
        if len(pasted):  # the pasted pixels form a rectangle
            (top, left), (bottom, right) = pasted.min(axis=0), pasted.max(axis=0)
            assert len(pasted) == (bottom - top + 1) * (right - left + 1)


def test_boxes_are_as_large_as_the_paper_draws_them() -> None:
    """With alpha 1 the fraction is uniform, so boxes would cover half of the image on average if they were not cut off
    at the edges."""
    images = np.zeros((4000, 16, 16, 1), np.uint8)
    labels = np.eye(2, dtype=np.float32)[np.arange(4000) % 2]
    labels_of_pairs = cutmix(images, labels, 1.0, np.random.default_rng(2))[1]
    mixed_share = 1 - labels_of_pairs.max(axis=1).mean()
    assert 0.05 < mixed_share < 0.25
    same = cutmix(images, labels, 1.0, np.random.default_rng(2))[1]
    np.testing.assert_array_equal(labels_of_pairs, same)
