"""PNGs of every depth and color type, interlaced or transparent, are decoded correctly. The files are written according
to the standard."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from service.imaging.decode import decode
from tests.support.png_writer import GRAY, GRAY_ALPHA, PALETTE, RGB, RGB_ALPHA, encode_png, transparent_value
from tests.unit.service.pixels import (
    BLACK,
    MAX_PIXELS,
    WHITE,
    assert_pixels_close,
    composite,
    encode_image,
    noise_image,
    random_samples,
    scale_to_8_bit,
)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_png_of_every_depth_is_scaled_to_eight_bits(depth: int, interlaced: bool) -> None:
    values = random_samples(depth, 1)
    file = encode_png(values, depth, GRAY, interlaced=interlaced)
    assert_pixels_close(decode(file, 1, BLACK, MAX_PIXELS), scale_to_8_bit(depth, values))
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), scale_to_8_bit(depth, values).repeat(3, axis=2))


@pytest.mark.parametrize("background", [BLACK, WHITE])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_gray_of_a_png_shows_the_background(depth: int, background: int) -> None:
    values = random_samples(depth, 1)
    transparent = int(values[0, 0, 0])
    file = encode_png(values, depth, GRAY, transparent=transparent_value(transparent))
    expected = np.where(values == transparent, background, scale_to_8_bit(depth, values))
    assert_pixels_close(decode(file, 1, background, MAX_PIXELS), expected)
    assert_pixels_close(decode(file, 3, background, MAX_PIXELS), expected.repeat(3, axis=2))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_color_png(depth: int, interlaced: bool) -> None:
    values = random_samples(depth, 3)
    assert_pixels_close(
        decode(encode_png(values, depth, RGB, interlaced=interlaced), 3, BLACK, MAX_PIXELS),
        scale_to_8_bit(depth, values),
    )


@pytest.mark.parametrize("background", [BLACK, WHITE])
@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_color_of_a_png_shows_the_background(depth: int, background: int) -> None:
    values = random_samples(depth, 3)
    file = encode_png(values, depth, RGB, transparent=transparent_value(*map(int, values[2, 3])))
    expected = scale_to_8_bit(depth, values)
    expected[2, 3] = background
    assert_pixels_close(decode(file, 3, background, MAX_PIXELS), expected)


@pytest.mark.parametrize("background", [BLACK, WHITE])
@pytest.mark.parametrize(("color", "count"), [(GRAY_ALPHA, 2), (RGB_ALPHA, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_with_alpha_is_laid_over_the_background(depth: int, color: int, count: int, background: int) -> None:
    values = random_samples(depth, count)
    alpha = values[..., -1:] / (2**depth - 1)
    expected = composite(scale_to_8_bit(depth, values[..., :-1]), alpha, background)
    decoded = decode(encode_png(values, depth, color), 3, background, MAX_PIXELS)
    assert_pixels_close(
        decoded, expected if count == 4 else expected.repeat(3, axis=2), tolerance=1 if depth == 8 else 2.5
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "alpha_of",
    [lambda n: b"", lambda n: b"\0", lambda n: b"\x80\xc0"[:n], lambda n: bytes(range(255, 255 - n, -1))],
    ids=["opaque", "first transparent", "first two translucent", "all"],
)
def test_palette_png(depth: int, alpha_of: Callable[[int], bytes]) -> None:
    entries = 2**depth
    palette = noise_image(entries, 1, 3)[:, 0]
    table = alpha_of(entries)
    alpha = np.full(entries, 255)
    alpha[: len(table)] = list(table)
    values = random_samples(depth, 1)
    decoded = decode(
        encode_png(values, depth, PALETTE, palette=palette, transparent=table or None), 3, WHITE, MAX_PIXELS
    )
    index = values[..., 0]
    assert_pixels_close(decoded, composite(palette[index].astype(float), alpha[index][..., np.newaxis] / 255, WHITE))


def test_the_first_frame_of_an_animated_png_is_read() -> None:
    frames = [Image.fromarray(noise_image(seed=seed)) for seed in (1, 2, 3)]
    assert_pixels_close(
        decode(encode_image(frames[0], "PNG", save_all=True, append_images=frames[1:]), 3, BLACK, MAX_PIXELS),
        noise_image(seed=1),
        0,
    )
