"""Run-length encoded BMPs are decoded as the format defines it, compared with a decoder that draws pixel by pixel."""

import struct

import numpy as np
import pytest

from service.errors import BadImage
from service.imaging.decode import decode
from tests.unit.service.pixels import BLACK, Array

RLE8, RLE4 = (8, 1), (4, 2)  # bits per pixel, compression
END_OF_LINE, END_OF_BITMAP = b"\0\0", b"\0\1"
MAX_PIXELS = 10**6


def run_length_bmp(width: int, height: int, kind: tuple[int, int], runs: bytes) -> bytes:
    """Returns a BMP whose palette is a ramp of gray from black to white."""
    bits, compression = kind
    palette = b"".join(bytes((gray, gray, gray, 0)) for gray in grays(bits).tolist())
    info = struct.pack("<LllHHLLLLLL", 40, width, height, 1, bits, compression, len(runs), 0, 0, 2**bits, 0)
    return b"BM" + struct.pack("<LLL", 0, 0, 14 + 40 + len(palette)) + info + palette + runs


def grays(bits: int) -> Array:
    return np.arange(2**bits) * 255 // (2**bits - 1)


def decode_gray(file: bytes) -> Array:
    return decode(file, 1, BLACK, MAX_PIXELS)[..., 0]


def drawn_pixel_by_pixel(width: int, height: int, bits: int, runs: bytes) -> Array:
    """Decodes according to the format's specification: each pixel is drawn at the current position."""
    canvas = np.zeros((height, width), int)
    x = y = position = 0

    def draw(index: int) -> None:
        nonlocal x
        if x < width and y < height:
            canvas[y, x] = index
        x += 1

    def half(byte: int, number: int) -> int:
        return byte if bits == 8 else byte >> 4 if number % 2 == 0 else byte & 15

    while position < len(runs):
        count, value = runs[position : position + 2]
        position += 2
        if count:
            for number in range(count):
                draw(half(value, number))
        elif value == 0:
            x, y = 0, y + 1
        elif value == 1:
            break
        elif value == 2:
            x, y = x + runs[position], y + runs[position + 1]
            position += 2
        else:
            pixels_per_byte = 8 // bits
            for number in range(value):
                draw(half(runs[position + number // pixels_per_byte], number))
            size = -(-value // pixels_per_byte)
            position += size + size % 2
    return np.asarray(grays(bits)[canvas][::-1])


def random_runs(random: np.random.Generator, width: int, height: int, bits: int) -> bytes:
    """Returns runs, literal pixels, moves and ends of lines in random order, up to the last line."""
    runs, x, y = bytearray(), 0, 0
    while y < height:
        left = width - x
        match random.choice(["run", "literal", "move", "end of line"], p=[0.4, 0.25, 0.15, 0.2]) if left else "end":
            case "run":
                count = int(random.integers(1, left + 1))
                runs += bytes((count, random.integers(256)))
                x += count
            case "literal" if left >= 3:
                count = int(random.integers(3, left + 1))
                size = -(-count * bits // 8)
                runs += bytes((0, count)) + random.bytes(size) + bytes(size % 2)
                x += count
            case "move":
                right, up = int(random.integers(left)), int(random.integers(min(4, height - y)))
                runs += bytes((0, 2, right, up))
                x, y = x + right, y + up
            case _:
                runs += END_OF_LINE
                x, y = 0, y + 1
    return bytes(runs) + END_OF_BITMAP


@pytest.mark.parametrize("kind", [RLE8, RLE4])
def test_random_images_have_the_pixels_that_the_format_defines(kind: tuple[int, int]) -> None:
    random = np.random.default_rng(5)
    for _ in range(200):
        width, height = (int(side) for side in random.integers(2, 41, 2))
        runs = random_runs(random, width, height, kind[0])
        expected = drawn_pixel_by_pixel(width, height, kind[0], runs)
        np.testing.assert_array_equal(decode_gray(run_length_bmp(width, height, kind, runs)), expected)


@pytest.mark.parametrize("kind", [RLE8, RLE4])
def test_the_end_of_a_line_without_pixels_skips_the_line(kind: tuple[int, int]) -> None:
    white = bytes((4, 0xFF)) + END_OF_LINE
    file = run_length_bmp(4, 4, kind, white + END_OF_LINE + END_OF_LINE + white + END_OF_BITMAP)
    assert decode_gray(file).tolist() == [[255] * 4, [0] * 4, [0] * 4, [255] * 4]


def test_a_run_ends_with_its_line() -> None:
    file = run_length_bmp(3, 2, RLE8, bytes((5, 255)) + END_OF_LINE + bytes((0, 4, 1, 2, 3, 4)) + END_OF_BITMAP)
    assert decode_gray(file).tolist() == [[1, 2, 3], [255] * 3]


def test_an_image_may_end_at_its_last_pixel_without_an_escape() -> None:
    file = run_length_bmp(3, 2, RLE8, bytes((3, 7)) + END_OF_LINE + bytes((3, 9)))
    assert decode_gray(file).tolist() == [[9] * 3, [7] * 3]


@pytest.mark.parametrize("runs", [b"", b"\3", bytes((3, 7)) + END_OF_LINE, b"\0\2\1", b"\0\3\1\2\3"])
def test_a_file_that_is_cut_off_is_rejected(runs: bytes) -> None:
    with pytest.raises(BadImage, match="damaged or truncated"):
        decode_gray(run_length_bmp(3, 2, RLE8, runs))
