"""RandAugment: each transformation follows its definition, all are equally likely, with the recipe's strength."""

import numpy as np
import pytest
from PIL import Image

from tests.support.images import random_pixels
from training.data.rand_augment import CHANGES, rand_augment
from training.recipes.base import Recipe

FILL = (10, 20, 30)


def recipe(**fields: object) -> Recipe:
    return Recipe(name="any", dataset="mnist", architecture="lenet5", **fields)


def changed(name: str, pixels: np.ndarray, magnitude: int, sign: int = 1) -> np.ndarray:
    """Applies one transformation with a magnitude of torchvision, 0 to 30."""
    return np.asarray(CHANGES[name](Image.fromarray(pixels), sign * magnitude / 30, FILL)).astype(int)


def test_the_changes_are_those_of_torchvision() -> None:
    assert list(CHANGES) == [
        *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color"),
        *("contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize"),
    ]


@pytest.mark.parametrize(("sign", "moved_px"), [(1, 9), (-1, -9)])
def test_translations_move_by_a_part_of_the_side(sign: int, moved_px: int) -> None:
    """At magnitude 15 of 30, the shift is half of 150/331 of 40 pixels, truncated to 9."""
    pixels = random_pixels(40, 40, 3, 1)
    expected = np.empty_like(pixels)
    expected[:] = FILL
    source, target = (slice(None, -9), slice(9, None)) if moved_px > 0 else (slice(9, None), slice(None, -9))
    expected[:, target] = pixels[:, source]
    np.testing.assert_array_equal(changed("translate_x", pixels, 15, sign), expected)
    upright = expected.transpose(1, 0, 2)
    np.testing.assert_array_equal(changed("translate_y", pixels.transpose(1, 0, 2), 15, sign), upright)


def test_a_shear_moves_each_row_by_its_distance_from_the_top() -> None:
    pixels = random_pixels(21, 21, 3, 2)
    sheared = changed("shear_x", pixels, 30)
    for row in range(21):
        distance = int(np.floor(0.3 * (row + 0.5) + 0.5))
        np.testing.assert_array_equal(sheared[row, : 21 - distance], pixels[row, distance:])
        assert (sheared[row, 21 - distance :] == FILL).all()
    upright = changed("shear_y", pixels.transpose(1, 0, 2), 30)
    np.testing.assert_array_equal(upright.transpose(1, 0, 2), sheared)


def test_a_rotation_keeps_the_middle_and_fills_the_corners() -> None:
    pixels = random_pixels(21, 21, 3, 3)
    rotated = changed("rotate", pixels, 30)  # by 30 degrees
    np.testing.assert_array_equal(rotated[10, 10], pixels[10, 10])
    assert (rotated[0, 0] == FILL).all()
    dot = np.zeros((21, 21, 3), np.uint8)
    dot[9:12, 17:20] = 255  # 8 to the right of the middle: 7 right and 4 up after 30 degrees to the left
    assert (changed("rotate", dot, 30)[6, 17] == 255).all()
    assert (changed("rotate", dot, 30, sign=-1)[14, 17] == 255).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_enhancements_mix_with_a_plainer_image(sign: int) -> None:
    """The factor is 1 plus or minus 0.9 * 20 / 30; 8-bit arithmetic rounds intermediate results."""
    pixels = random_pixels(16, 16, 3, 4)
    factor = 1 + sign * 0.9 * 20 / 30
    gray = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    for name, plain in {"brightness": 0.0, "color": gray, "contrast": gray.mean()}.items():
        expected = np.clip(plain + factor * (pixels - plain), 0, 255)
        np.testing.assert_allclose(changed(name, pixels, 20, sign), expected, atol=2)


@pytest.mark.parametrize("sign", [1, -1])
def test_sharpness_mixes_with_a_smoothed_image(sign: int) -> None:
    pixels = random_pixels(16, 16, 3, 5)
    factor = 1 + sign * 0.9 * 10 / 30
    windows = np.lib.stride_tricks.sliding_window_view(pixels.astype(float), (3, 3), axis=(0, 1))
    smooth = (windows * np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13).sum(axis=(-2, -1))
    inner = pixels[1:-1, 1:-1]
    expected = np.clip(smooth + factor * (inner - smooth), 0, 255)
    np.testing.assert_allclose(changed("sharpness", pixels, 10, sign)[1:-1, 1:-1], expected, atol=2)


@pytest.mark.parametrize(("magnitude", "bits"), [(0, 8), (9, 7), (15, 6), (30, 4)])
def test_posterizing_keeps_the_high_bits(magnitude: int, bits: int) -> None:
    pixels = random_pixels(16, 16, 3, 6)
    expected = pixels >> (8 - bits) << (8 - bits)
    for sign in (1, -1):
        np.testing.assert_array_equal(changed("posterize", pixels, magnitude, sign), expected)


@pytest.mark.parametrize(("magnitude", "threshold"), [(0, 255), (9, 178.5), (30, 0)])
def test_solarizing_inverts_what_is_bright(magnitude: int, threshold: float) -> None:
    pixels = random_pixels(16, 16, 3, 7)
    expected = np.where(pixels >= threshold, 255 - pixels, pixels)
    for sign in (1, -1):
        np.testing.assert_array_equal(changed("solarize", pixels, magnitude, sign), expected)


def test_contrast_is_stretched_and_the_histogram_made_even() -> None:
    pixels = np.random.default_rng(8).integers(50, 114, (40, 40, 3), np.uint8)
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    expected = (pixels - low) * (255 / (high.astype(float) - low))
    np.testing.assert_allclose(changed("autocontrast", pixels, 9), expected, atol=1)
    equalized = changed("equalize", pixels, 9)
    assert np.percentile(equalized, 25) == pytest.approx(64, abs=16)
    assert np.percentile(equalized, 75) == pytest.approx(191, abs=16)


def test_changes_and_directions_are_drawn_evenly_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, float]] = []

    def record(name: str):
        def change(image: Image.Image, strength: float, fill: tuple[int, ...]) -> Image.Image:
            calls.append((name, strength))
            assert fill == (128, 128, 128)
            return image

        return change

    for name in CHANGES:
        monkeypatch.setitem(CHANGES, name, record(name))
    images = np.zeros((1400, 2, 2, 3), np.uint8)
    rand_augment(images, recipe(randaugment=2, randaugment_magnitude=12, mean=(0.5,)), np.random.default_rng(1))
    assert len(calls) == 2800
    for name in CHANGES:
        for strength in (0.4, -0.4):
            assert 60 < calls.count((name, strength)) < 140  # 100 expected
    assert any(first[0] != second[0] for first, second in zip(calls[::2], calls[1::2], strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_change_takes_gray_and_color_images(channels: int) -> None:
    images = np.stack([random_pixels(9, 7, channels, seed) for seed in range(60)])
    before = images.copy()
    result = rand_augment(images, recipe(randaugment=3, randaugment_magnitude=30), np.random.default_rng(2))
    np.testing.assert_array_equal(images, before)
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    assert (result != images).any(axis=(1, 2, 3)).mean() > 0.8
