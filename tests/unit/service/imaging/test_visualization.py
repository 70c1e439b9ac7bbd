"""Rendered images agree with the arrays: every image at its place, the highest heat in full color."""

import io

import numpy as np
from PIL import Image

from service.imaging.visualization import (
    NEGATIVE_COLOR,
    POSITIVE_COLOR,
    encode_png,
    grid,
    overlay_heatmap,
    stack_vertically,
    upscale,
)


def test_a_png_keeps_every_pixel() -> None:
    for channels in (1, 2, 3, 4):
        pixels = np.random.default_rng(channels).integers(0, 256, (5, 7, channels), np.uint8)
        decoded = np.asarray(Image.open(io.BytesIO(encode_png(pixels)))).reshape(pixels.shape)
        np.testing.assert_array_equal(decoded, pixels)


def test_a_grid_has_rows_of_eight_with_gaps_that_are_transparent() -> None:
    images = np.random.default_rng(0).normal(size=(10, 4, 3, 1)).astype(np.float32)
    rendered = grid(images)
    assert rendered.shape == (4 + 1 + 4, 8 * 4 - 1, 2)
    for index, image in enumerate(images):
        top, left = index // 8 * 5, index % 8 * 4
        part = rendered[top : top + 4, left : left + 3]
        assert (part[..., 1] == 255).all()
        assert (part[..., 0].min(), part[..., 0].max()) == (0, 255)
        assert part[..., 0].argmax() == image.argmax()
    assert (rendered[4, :, 1] == 0).all()
    assert (rendered[:, 3, 1] == 0).all()
    assert (rendered[5:, 8:, 1] == 0).all()  # there is no eleventh image


def test_large_images_of_a_grid_are_averaged_down() -> None:
    halves = np.zeros((2, 130, 112, 1), np.float32)
    halves[:, :, 57:] = 1  # three columns become one
    rendered = grid(halves)
    assert rendered.shape == (43, 2 * 37 + 1, 2)
    assert set(np.unique(rendered[:, :37, 0])) == {0, 255}
    assert (rendered[:, :19, 0] == 0).all()


def test_a_uniform_image_is_black_and_colors_are_kept() -> None:
    assert (grid(np.full((1, 2, 2, 1), 7, np.float32))[..., 0] == 0).all()
    colored = np.zeros((1, 1, 2, 3), np.float32)
    colored[0, 0, 1] = (1, 0, 0.5)
    np.testing.assert_array_equal(grid(colored)[0, 1], [255, 0, 128, 255])


def test_positive_heat_is_orange_and_negative_heat_blue() -> None:
    image = np.full((1, 3, 1), 200, np.uint8)
    rendered = overlay_heatmap(image, np.array([[2.0, 0.0, -2.0]], np.float32))
    np.testing.assert_array_equal(rendered[0, 0], POSITIVE_COLOR)
    np.testing.assert_array_equal(rendered[0, 1], [90, 90, 90])
    np.testing.assert_array_equal(rendered[0, 2], NEGATIVE_COLOR)
    assert (overlay_heatmap(image, np.zeros((1, 3), np.float32)) == 90).all()


def test_images_of_different_kinds_are_stacked_vertically() -> None:
    gray, color = np.full((2, 4, 1), 9, np.uint8), np.full((1, 2, 3), 5, np.uint8)
    rendered = stack_vertically([gray, color])
    assert rendered.shape == (2 * 112 + 8 + 224, 448, 4)
    assert rendered[0, 0].tolist() == [9, 9, 9, 255]
    assert rendered[-1, -1].tolist() == [5, 5, 5, 255]
    assert rendered[2 * 112, 0, 3] == 0


def test_large_images_are_never_made_smaller() -> None:
    assert upscale(np.zeros((10, 2000, 3), np.uint8)).shape == (10, 2000, 3)
