"""JPEG, WebP, BMP and GIF are decoded to the right pixels, and large images are whole."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.imaging.decode import FORMATS, STRIP_PIXELS, decode, open_image
from tests.support.png_writer import GREY, RGB, RGB_ALPHA, png
from tests.unit.service.pixels import (
    BLACK,
    HEIGHT,
    LIMIT,
    WHITE,
    WIDTH,
    Array,
    assert_shows,
    laid_over,
    noise,
    opaque,
    samples,
    saved,
    smooth,
)


@pytest.mark.parametrize("progressive", [False, True])
def test_colour_jpeg(progressive: bool) -> None:
    file = saved(Image.fromarray(smooth()), "JPEG", quality=95, progressive=progressive)
    assert_shows(decode(file, 3, BLACK, LIMIT), smooth(), tolerance=8)


def test_grey_jpeg() -> None:
    grey = smooth()[..., :1]
    file = saved(Image.fromarray(grey[..., 0]), "JPEG", quality=95)
    assert_shows(decode(file, 1, BLACK, LIMIT), grey, tolerance=4)
    assert_shows(decode(file, 3, BLACK, LIMIT), grey.repeat(3, axis=2), tolerance=4)


def test_cmyk_jpeg() -> None:
    inks = Image.merge(
        "CMYK", [Image.fromarray(255 - smooth()[..., band]) for band in range(3)] + [Image.new("L", (64, 48), 51)]
    )
    assert_shows(decode(saved(inks, "JPEG", quality=95), 3, BLACK, LIMIT), smooth() * 0.8, tolerance=8)


def test_lossy_webp() -> None:
    assert_shows(decode(saved(Image.fromarray(smooth()), "WEBP", quality=95), 3, BLACK, LIMIT), smooth(), tolerance=16)


def test_lossless_webp() -> None:
    assert_shows(decode(saved(Image.fromarray(noise()), "WEBP", lossless=True), 3, BLACK, LIMIT), noise(), 0)


@pytest.mark.parametrize("background", [BLACK, WHITE])
def test_webp_with_alpha_is_laid_over_the_background(background: int) -> None:
    pixels = noise(channels=4)
    file = saved(Image.fromarray(pixels), "WEBP", lossless=True, exact=True)
    expected = laid_over(pixels[..., :3].astype(float), pixels[..., 3:] / 255, background)
    assert_shows(decode(file, 3, background, LIMIT), expected)


def test_the_first_frame_of_an_animated_webp_is_read() -> None:
    frames = [Image.fromarray(noise(seed=seed)) for seed in (1, 2)]
    file = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert_shows(decode(file, 3, BLACK, LIMIT), noise(seed=1), 0)


def bmp(height: int, bits: int, compression: int, data: bytes, palette: bytes = b"", masks: bytes = b"") -> bytes:
    """A Windows bitmap of WIDTH columns; a negative height puts the top row first."""
    offset = 14 + 40 + len(masks) + len(palette)
    info = struct.pack("<LllHHLLllLL", 40, WIDTH, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<LLL", offset + len(data), 0, offset) + info + masks + palette + data


def padded(row: bytes) -> bytes:
    return row + bytes(-len(row) % 4)


@pytest.mark.parametrize("top_first", [False, True])
def test_colour_bmp(top_first: bool) -> None:
    pixels = noise()
    rows = [padded(row.tobytes()) for row in pixels[..., ::-1]]
    file = bmp(-HEIGHT if top_first else HEIGHT, 24, 0, b"".join(rows if top_first else rows[::-1]))
    assert_shows(decode(file, 3, BLACK, LIMIT), pixels, 0)


def test_bmp_of_sixteen_bits_a_pixel() -> None:
    fields = noise() // [8, 4, 8]
    packed = (fields[..., 0] << 11 | fields[..., 1] << 5 | fields[..., 2]).astype("<u2")
    data = b"".join(padded(row.tobytes()) for row in packed[::-1])
    file = bmp(HEIGHT, 16, 3, data, masks=struct.pack("<LLL", 0xF800, 0x07E0, 0x001F))
    assert_shows(decode(file, 3, BLACK, LIMIT), fields * 255 / [31, 63, 31])


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palette_bmp(bits: int) -> None:
    palette = noise(2**bits, 1, 3)[:, 0]
    index = samples(bits, 1)[..., 0]
    spread = index[..., np.newaxis] >> np.arange(bits - 1, -1, -1) & 1
    rows = np.packbits(spread.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    table = b"".join(entry[::-1].tobytes() + b"\0" for entry in palette)
    file = bmp(HEIGHT, bits, 0, b"".join(padded(row.tobytes()) for row in rows[::-1]), table)
    assert_shows(decode(file, 3, BLACK, LIMIT), palette[index], 0)


def test_run_length_encoded_bmp() -> None:
    palette = noise(256, 1, 3)[:, 0]
    index = samples(8, 1)[..., 0]
    table = b"".join(entry[::-1].tobytes() + b"\0" for entry in palette)
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in index[::-1]) + b"\0\1"
    assert_shows(decode(bmp(HEIGHT, 8, 1, runs, table), 3, BLACK, LIMIT), palette[index], 0)


def paletted(index: Array) -> Image.Image:
    image = Image.fromarray(index.astype(np.uint8)).convert("P")
    image.putpalette(noise(256, 1, 3)[:, 0].tobytes())
    return image


def test_the_first_frame_of_a_gif_is_read() -> None:
    first, second = samples(8, 1)[..., 0], samples(4, 1)[..., 0]
    expected = noise(256, 1, 3)[:, 0][first]
    assert_shows(decode(saved(paletted(first), "GIF"), 3, BLACK, LIMIT), expected, 0)
    animated = saved(paletted(first), "GIF", save_all=True, append_images=[paletted(second)])
    assert_shows(decode(animated, 3, BLACK, LIMIT), expected, 0)


@pytest.mark.parametrize("background", [BLACK, WHITE])
def test_the_transparent_colour_of_a_gif_shows_the_background(background: int) -> None:
    index = samples(8, 1)[..., 0]
    expected = noise(256, 1, 3)[:, 0][index]
    expected[index == 7] = background
    assert (index == 7).any()
    file = saved(paletted(index), "GIF", transparency=7, optimize=False)
    assert_shows(decode(file, 3, background, LIMIT), expected, 0)


def test_one_channel_is_luma() -> None:
    pixels = noise()
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert_shows(decode(png(pixels, 8, RGB), 1, BLACK, LIMIT), luma[..., np.newaxis])


@pytest.mark.parametrize(("depth", "colour", "count"), [(16, GREY, 1), (8, RGB, 3), (8, RGB_ALPHA, 4)])
def test_a_image_of_several_strips_is_whole(depth: int, colour: int, count: int) -> None:
    values = samples(depth, count, 1201, 1103)
    assert values[..., 0].size > STRIP_PIXELS
    expected = opaque(depth, values[..., :3])
    if count == 4:
        expected = laid_over(expected, values[..., 3:] / 255, WHITE)
    channels = min(count, 3)
    assert_shows(decode(png(values, depth, colour), channels, WHITE, LIMIT), expected)


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_header_alone_gives_the_size(image_format: str) -> None:
    file = saved(Image.fromarray(noise()), image_format)
    assert open_image(file, LIMIT).size == (WIDTH, HEIGHT)


def test_real_photographs_are_those_that_pillow_reads(data_dir: Path) -> None:
    files = sorted((data_dir / "photos").glob("*.JPEG"))
    assert files
    for file in files:
        expected = np.asarray(Image.open(file).convert("RGB"))
        assert_shows(decode(file.read_bytes(), 3, BLACK, LIMIT), expected, 0)
