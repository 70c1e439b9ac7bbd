"""Drawings show what the arrays say: every image in its place, the strongest heat in full colour."""

import io

import numpy as np
from PIL import Image

from service.imaging.render import AGAINST, FOR, grid, overlay_heatmap, png, stack_vertically, upscale


def test_a_png_keeps_every_pixel() -> None:
    for channels in (1, 2, 3, 4):
        pixels = np.random.default_rng(channels).integers(0, 256, (5, 7, channels), np.uint8)
        read = np.asarray(Image.open(io.BytesIO(png(pixels)))).reshape(pixels.shape)
        np.testing.assert_array_equal(read, pixels)


def test_a_grid_has_rows_of_eight_with_gaps_that_are_transparent() -> None:
    images = np.random.default_rng(0).normal(size=(10, 4, 3, 1)).astype(np.float32)
    drawn = grid(images)
    assert drawn.shape == (4 + 1 + 4, 8 * 4 - 1, 2)
    for at, image in enumerate(images):
        top, left = at // 8 * 5, at % 8 * 4
        part = drawn[top : top + 4, left : left + 3]
        assert (part[..., 1] == 255).all()
        assert (part[..., 0].min(), part[..., 0].max()) == (0, 255)
        assert part[..., 0].argmax() == image.argmax()
    assert (drawn[4, :, 1] == 0).all()
    assert (drawn[:, 3, 1] == 0).all()
    assert (drawn[5:, 8:, 1] == 0).all()  # where there is no eleventh


def test_large_images_of_a_grid_are_averaged_down() -> None:
    halves = np.zeros((2, 130, 112, 1), np.float32)
    halves[:, :, 57:] = 1  # three columns become one
    drawn = grid(halves)
    assert drawn.shape == (43, 2 * 37 + 1, 2)
    assert set(np.unique(drawn[:, :37, 0])) == {0, 255}
    assert (drawn[:, :19, 0] == 0).all()


def test_an_even_image_is_black_and_colours_stay() -> None:
    assert (grid(np.full((1, 2, 2, 1), 7, np.float32))[..., 0] == 0).all()
    coloured = np.zeros((1, 1, 2, 3), np.float32)
    coloured[0, 0, 1] = (1, 0, 0.5)
    np.testing.assert_array_equal(grid(coloured)[0, 1], [255, 0, 128, 255])


def test_heat_is_orange_for_and_blue_against() -> None:
    image = np.full((1, 3, 1), 200, np.uint8)
    drawn = overlay_heatmap(image, np.array([[2.0, 0.0, -2.0]], np.float32))
    np.testing.assert_array_equal(drawn[0, 0], FOR)
    np.testing.assert_array_equal(drawn[0, 1], [90, 90, 90])
    np.testing.assert_array_equal(drawn[0, 2], AGAINST)
    assert (overlay_heatmap(image, np.zeros((1, 3), np.float32)) == 90).all()


def test_a_sheet_puts_kinds_below_each_other() -> None:
    grey, colour = np.full((2, 4, 1), 9, np.uint8), np.full((1, 2, 3), 5, np.uint8)
    drawn = stack_vertically([grey, colour])
    assert drawn.shape == (2 * 112 + 8 + 224, 448, 4)
    assert drawn[0, 0].tolist() == [9, 9, 9, 255]
    assert drawn[-1, -1].tolist() == [5, 5, 5, 255]
    assert drawn[2 * 112, 0, 3] == 0


def test_large_images_are_never_made_smaller() -> None:
    assert upscale(np.zeros((10, 2000, 3), np.uint8)).shape == (10, 2000, 3)
