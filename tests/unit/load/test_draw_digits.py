"""Drawn digits are recognizable and all different, and the same seed draws the same digit."""

from pathlib import Path

import numpy as np
import pytest

from tests.load.digit_images import digits, known_digits
from tests.load.draw_digits import INK_PX, SIDE_PX, draw_digit

SHIPPED = Path("models")
SEEDS = 30


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_is_white_ink_on_black_inside_its_box(digit: int) -> None:
    digit_pixels = draw_digit(digit, seed=3)
    assert digit_pixels.shape == (SIDE_PX, SIDE_PX, 1)
    assert digit_pixels.dtype == np.uint8
    rows, columns = np.nonzero(digit_pixels[..., 0])
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in range(INK_PX - 2, INK_PX + 1)
    assert digit_pixels.max() > 200
    assert 0.03 < (digit_pixels > 127).mean() < 0.3


def test_every_drawing_is_different_and_reproducible() -> None:
    drawings = {draw_digit(digit, seed).tobytes() for digit in range(10) for seed in range(SEEDS)}
    assert len(drawings) == 10 * SEEDS
    assert np.array_equal(draw_digit(7, 1), draw_digit(7, 1))


def test_the_drawings_resemble_their_digits_in_mnist(data_dir: Path) -> None:
    """For most drawings, the nearest of 10,000 real digits has the same label. This check needs no trained model."""
    from training.data.datasets import mnist

    real = mnist.load(data_dir).test
    pixels = real.images.reshape(len(real.images), -1).astype(np.float32)
    digit_pixels = np.stack([draw_digit(d, seed).ravel() for d in range(10) for seed in range(SEEDS)]).astype(
        np.float32
    )
    distance = (pixels**2).sum(1) - 2 * digit_pixels @ pixels.T
    nearest = real.labels[distance.argmin(1)].reshape(10, SEEDS)
    right = (nearest == np.arange(10)[:, np.newaxis]).mean(1)
    assert right.min() >= 0.5, right
    assert right.mean() >= 0.9, right


def test_the_shipped_lenet5_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (SHIPPED / "mnist-lenet5").is_dir():
        pytest.skip("models/mnist-lenet5 is not there")
    monkeypatch.delenv("CONVOY_DATA", raising=False)
    assert len(known_digits(200, SHIPPED, "mnist-lenet5")) >= 190


def test_without_data_the_digits_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOY_DATA", raising=False)
    pixels, labels = digits(12)
    assert pixels.shape == (12, SIDE_PX, SIDE_PX, 1)
    assert labels == list("012345678901")
    assert np.array_equal(pixels[11], draw_digit(1, 1))


def test_with_data_the_digits_are_those_of_mnist(data_dir: Path) -> None:
    pixels, labels = digits(10)
    assert pixels.shape == (10, SIDE_PX, SIDE_PX, 1)
    assert labels == list("7210414959")  # the first ten of the official test set
