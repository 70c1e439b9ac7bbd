"""JPEG, WebP, BMP and GIF are decoded to the correct pixels, and large images completely."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import BadImage
from service.imaging.decode import FORMATS, decode, open_image
from service.imaging.limits import RUN_LENGTH_COST, DecodeLimits
from service.imaging.pixel_formats import STRIP_PIXELS
from tests.support.images import encode
from tests.support.png_writer import GRAY, RGB, RGB_ALPHA, encode_png
from tests.unit.service.pixels import (
    BLACK,
    HEIGHT,
    MAX_PIXELS,
    WHITE,
    WIDTH,
    Array,
    assert_pixels_close,
    composite,
    encode_image,
    gradient_image,
    noise_image,
    random_samples,
    scale_to_8_bit,
)


@pytest.mark.parametrize("progressive", [False, True])
def test_color_jpeg(progressive: bool) -> None:
    file = encode_image(Image.fromarray(gradient_image()), "JPEG", quality=95, progressive=progressive)
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), gradient_image(), tolerance=8)


def test_gray_jpeg() -> None:
    gray = gradient_image()[..., :1]
    file = encode_image(Image.fromarray(gray[..., 0]), "JPEG", quality=95)
    assert_pixels_close(decode(file, 1, BLACK, MAX_PIXELS), gray, tolerance=4)
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), gray.repeat(3, axis=2), tolerance=4)


def test_cmyk_jpeg() -> None:
    inks = Image.merge(
        "CMYK",
        [Image.fromarray(255 - gradient_image()[..., band]) for band in range(3)] + [Image.new("L", (64, 48), 51)],
    )
    assert_pixels_close(
        decode(encode_image(inks, "JPEG", quality=95), 3, BLACK, MAX_PIXELS), gradient_image() * 0.8, tolerance=8
    )


def test_lossy_webp() -> None:
    assert_pixels_close(
        decode(encode_image(Image.fromarray(gradient_image()), "WEBP", quality=95), 3, BLACK, MAX_PIXELS),
        gradient_image(),
        tolerance=16,
    )


def test_lossless_webp() -> None:
    assert_pixels_close(
        decode(encode_image(Image.fromarray(noise_image()), "WEBP", lossless=True), 3, BLACK, MAX_PIXELS),
        noise_image(),
        0,
    )


@pytest.mark.parametrize("background", [BLACK, WHITE])
def test_webp_with_alpha_is_laid_over_the_background(background: int) -> None:
    pixels = noise_image(channels=4)
    file = encode_image(Image.fromarray(pixels), "WEBP", lossless=True, exact=True)
    expected = composite(pixels[..., :3].astype(float), pixels[..., 3:] / 255, background)
    assert_pixels_close(decode(file, 3, background, MAX_PIXELS), expected)


def test_the_first_frame_of_an_animated_webp_is_read() -> None:
    frames = [Image.fromarray(noise_image(seed=seed)) for seed in (1, 2)]
    file = encode_image(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), noise_image(seed=1), 0)


def bmp(height: int, bits: int, compression: int, data: bytes, palette: bytes = b"", masks: bytes = b"") -> bytes:
    """Returns a Windows bitmap with WIDTH columns. A negative height puts the top row first."""
    offset = 14 + 40 + len(masks) + len(palette)
    info = struct.pack("<LllHHLLllLL", 40, WIDTH, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<LLL", offset + len(data), 0, offset) + info + masks + palette + data


def padded_row(row: bytes) -> bytes:
    return row + bytes(-len(row) % 4)


def test_only_large_webp_files_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that copy the pixels of such files keep the GIL from the event loop."""
    sizes: list[tuple[str, int]] = []

    class RecordingLock:
        def __enter__(self) -> None:
            sizes.append(current)

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr("service.imaging.decode._large_webp_lock", RecordingLock())
    for current in (("WEBP", 100), ("PNG", 1500), ("WEBP", 1500)):
        image_format, side = current
        data = encode(np.zeros((side, side, 3), np.uint8), image_format)
        assert decode(data, 3, 0, 4 * side * side).shape == (side, side, 3)
    assert sizes == [("WEBP", 1500)]


@pytest.mark.parametrize("top_first", [False, True])
def test_color_bmp(top_first: bool) -> None:
    pixels = noise_image()
    rows = [padded_row(row.tobytes()) for row in pixels[..., ::-1]]
    file = bmp(-HEIGHT if top_first else HEIGHT, 24, 0, b"".join(rows if top_first else rows[::-1]))
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), pixels, 0)


def test_bmp_of_sixteen_bits_a_pixel() -> None:
    fields = noise_image() // [8, 4, 8]
    packed = (fields[..., 0] << 11 | fields[..., 1] << 5 | fields[..., 2]).astype("<u2")
    data = b"".join(padded_row(row.tobytes()) for row in packed[::-1])
    file = bmp(HEIGHT, 16, 3, data, masks=struct.pack("<LLL", 0xF800, 0x07E0, 0x001F))
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), fields * 255 / [31, 63, 31])


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palette_bmp(bits: int) -> None:
    palette = noise_image(2**bits, 1, 3)[:, 0]
    index = random_samples(bits, 1)[..., 0]
    spread = index[..., np.newaxis] >> np.arange(bits - 1, -1, -1) & 1
    rows = np.packbits(spread.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    table = b"".join(entry[::-1].tobytes() + b"\0" for entry in palette)
    file = bmp(HEIGHT, bits, 0, b"".join(padded_row(row.tobytes()) for row in rows[::-1]), table)
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), palette[index], 0)


def test_run_length_encoded_bmp() -> None:
    palette = noise_image(256, 1, 3)[:, 0]
    index = random_samples(8, 1)[..., 0]
    table = b"".join(entry[::-1].tobytes() + b"\0" for entry in palette)
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in index[::-1]) + b"\0\1"
    assert_pixels_close(decode(bmp(HEIGHT, 8, 1, runs, table), 3, BLACK, MAX_PIXELS), palette[index], 0)


def test_escapes_of_a_run_length_encoded_bmp() -> None:
    """RLE8: a run, literal pixels, end of line, a move to the right and up, and end of image."""
    runs = bytes([3, 7, 0, 0]) + bytes([0, 3, 1, 2, 3, 0]) + bytes([0, 2, 1, 1]) + bytes([2, 9]) + b"\0\1"
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[-1, :3] = 7
    expected[-2, :3] = 1, 2, 3
    expected[-3, 4:6] = 9
    palette = noise_image(256, 1, 3)[:, 0]
    table = b"".join(entry[::-1].tobytes() + b"\0" for entry in palette)
    assert_pixels_close(decode(bmp(HEIGHT, 8, 1, runs, table), 3, BLACK, MAX_PIXELS), palette[expected], 0)


def test_escapes_of_a_bmp_with_runs_of_4_bits() -> None:
    """RLE4: the two pixels of a byte alternate."""
    runs = (
        bytes([5, 0x7A, 0, 0]) + bytes([0, 5, 0x12, 0x34, 0x50, 0]) + bytes([0, 2, 1, 1]) + bytes([2, 0x9C]) + b"\0\1"
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[-1, :5] = 7, 10, 7, 10, 7
    expected[-2, :5] = 1, 2, 3, 4, 5
    expected[-3, 6:8] = 9, 12
    palette = noise_image(16, 1, 3)[:, 0]
    table = b"".join(entry[::-1].tobytes() + b"\0" for entry in palette)
    assert_pixels_close(decode(bmp(HEIGHT, 4, 2, runs, table), 3, BLACK, MAX_PIXELS), palette[expected], 0)


def test_a_run_length_encoded_bmp_that_is_cut_off_is_rejected() -> None:
    row = bytes([WIDTH, 5, 0, 0])
    for runs in (row * (HEIGHT - 1), row * (HEIGHT - 1) + b"\0", b""):
        with pytest.raises(BadImage, match="damaged or truncated"):
            decode(bmp(HEIGHT, 8, 1, runs, bytes(1024)), 3, BLACK, MAX_PIXELS)


def test_a_run_length_encoded_bmp_of_many_runs_is_read() -> None:
    """640x480 in 9,720 bytes: runs of 80 pixels, each of which takes two reads."""
    row = b"".join(bytes([80, value]) for value in range(8)) + b"\0\0"
    table = b"".join(bytes([value, value, value, 0]) for value in range(256))
    info = struct.pack("<LLLHHLLLLLL", 40, 640, 480, 1, 8, 1, 0, 0, 0, 256, 0)
    file = b"BM" + struct.pack("<LLL", 0, 0, 14 + 40 + len(table)) + info + table + row * 480 + b"\0\1"
    assert len(file) == 9720
    pixels = decode(file, 1, BLACK, RUN_LENGTH_COST * 640 * 480)
    np.testing.assert_array_equal(pixels[..., 0], np.broadcast_to(np.repeat(np.arange(8), 80), (480, 640)))


def palette_image(index: Array) -> Image.Image:
    image = Image.fromarray(index.astype(np.uint8)).convert("P")
    image.putpalette(noise_image(256, 1, 3)[:, 0].tobytes())
    return image


def test_the_first_frame_of_a_gif_is_read() -> None:
    first, second = random_samples(8, 1)[..., 0], random_samples(4, 1)[..., 0]
    expected = noise_image(256, 1, 3)[:, 0][first]
    assert_pixels_close(decode(encode_image(palette_image(first), "GIF"), 3, BLACK, MAX_PIXELS), expected, 0)
    animated = encode_image(palette_image(first), "GIF", save_all=True, append_images=[palette_image(second)])
    assert_pixels_close(decode(animated, 3, BLACK, MAX_PIXELS), expected, 0)


@pytest.mark.parametrize("background", [BLACK, WHITE])
def test_the_transparent_color_of_a_gif_shows_the_background(background: int) -> None:
    index = random_samples(8, 1)[..., 0]
    expected = noise_image(256, 1, 3)[:, 0][index]
    expected[index == 7] = background
    assert (index == 7).any()
    file = encode_image(palette_image(index), "GIF", transparency=7, optimize=False)
    assert_pixels_close(decode(file, 3, background, MAX_PIXELS), expected, 0)


def test_one_channel_is_luma() -> None:
    pixels = noise_image()
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert_pixels_close(decode(encode_png(pixels, 8, RGB), 1, BLACK, MAX_PIXELS), luma[..., np.newaxis])


@pytest.mark.parametrize(("depth", "color", "count"), [(16, GRAY, 1), (8, RGB, 3), (8, RGB_ALPHA, 4)])
def test_an_image_of_several_strips_is_decoded_completely(depth: int, color: int, count: int) -> None:
    values = random_samples(depth, count, 1201, 1103)
    assert values[..., 0].size > STRIP_PIXELS
    expected = scale_to_8_bit(depth, values[..., :3])
    if count == 4:
        expected = composite(expected, values[..., 3:] / 255, WHITE)
    channels = min(count, 3)
    assert_pixels_close(decode(encode_png(values, depth, color), channels, WHITE, MAX_PIXELS), expected)


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_header_alone_gives_the_size(image_format: str) -> None:
    file = encode_image(Image.fromarray(noise_image()), image_format)
    assert open_image(file, DecodeLimits(MAX_PIXELS)).image.size == (WIDTH, HEIGHT)


def test_real_photographs_are_those_that_pillow_reads(data_dir: Path) -> None:
    files = sorted((data_dir / "photos").glob("*.JPEG"))
    assert files
    for file in files:
        expected = np.asarray(Image.open(file).convert("RGB"))
        assert_pixels_close(decode(file.read_bytes(), 3, BLACK, MAX_PIXELS), expected, 0)
