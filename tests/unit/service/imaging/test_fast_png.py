"""The fast path for plain PNGs gives exactly Pillow's pixels, and leaves all other files to Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.errors import BadImage
from service.imaging import decode
from service.imaging.fast_png import MAX_DATA_BYTES, MAX_PIXELS, decode_simple_png
from service.imaging.limits import DecodeLimits
from tests.support.png_writer import chunk

MODES = {1: "L", 3: "RGB"}
PIXELS = np.random.default_rng(0).integers(0, 256, (28, 20, 3), np.uint8)


def saved_png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def image_png(channels: int) -> bytes:
    return saved_png(Image.fromarray(PIXELS if channels == 3 else PIXELS[..., 0]))


@pytest.mark.parametrize("channels", [1, 3])
@given(st.integers(1, 64), st.integers(1, 64), st.integers(0, 9), st.integers(0, 2**32))
def test_the_pixels_are_those_that_were_saved(channels: int, width: int, height: int, level: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    pixels[: height // 2] //= 64  # smooth parts and noise, so that the encoder chooses among its filters
    data = saved_png(Image.fromarray(pixels if channels == 3 else pixels[..., 0]), compress_level=level)
    np.testing.assert_array_equal(decode_simple_png(data, channels, 10**6), pixels)


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (image_png(3), 1),
        (image_png(1), 3),
        (saved_png(Image.fromarray(PIXELS[..., 0]), transparency=3), 1),
        (saved_png(Image.fromarray(PIXELS).convert("RGBA")), 3),
        (saved_png(Image.fromarray(PIXELS).convert("P")), 3),
        (saved_png(Image.fromarray(PIXELS[..., 0]).convert("1")), 1),
        (saved_png(Image.fromarray(PIXELS[..., 0].astype(np.uint16))), 1),
        (saved_png(Image.fromarray(PIXELS), dpi=(72, 72)), 3),
        (saved_png(Image.fromarray(PIXELS), exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"), 3),
        (image_png(1) + b"more", 1),
        (image_png(1)[:-1], 1),
        (saved_png(Image.new("L", (MAX_PIXELS + 1, 1))), 1),
        (b"", 1),
        (b"\x89PNG\r\n\x1a\n", 1),
    ],
)
def test_any_other_file_is_left_alone(data: bytes, channels: int) -> None:
    assert decode_simple_png(data, channels, 10**6) is None


def test_the_limit_of_pixels_holds() -> None:
    assert decode_simple_png(image_png(1), 1, 28 * 20) is not None
    assert decode_simple_png(image_png(1), 1, 28 * 20 - 1) is None


@pytest.mark.parametrize("offset", [17, 33, 50, 60, -20])
def test_a_damaged_file_is_rejected_as_by_pillow(offset: int) -> None:
    data = bytearray(image_png(1))
    data[offset] ^= 0xFF
    try:
        expected = decode.read_pixels(decode.open_image(bytes(data), DecodeLimits(10**6)).image, 1, 0)
    except Exception as error:
        with pytest.raises(type(error)):
            decode.decode(bytes(data), 1, 0, 10**6)
    else:
        np.testing.assert_array_equal(decode.decode(bytes(data), 1, 0, 10**6), expected)


def test_pixels_that_end_too_soon_are_rejected() -> None:
    data = image_png(1)
    short = zlib.compress(bytes(10))
    chunk = b"IDAT" + short
    data = data[:33] + len(short).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4) + data[-12:]
    with pytest.raises(BadImage):
        decode.decode(data, 1, 0, 10**6)


def test_data_that_is_far_too_long_is_left_alone() -> None:
    """Such data must not be read on the event loop's thread."""
    sound = image_png(1)
    rows = zlib.decompress(sound[41:-16])
    for empty_blocks, simple in ((1, True), (MAX_DATA_BYTES // 5, False)):  # RFC 1951, section 3.2.4
        last = b"\1" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
        data = b"\x78\1" + b"\0\0\0\xff\xff" * empty_blocks + last + struct.pack(">I", zlib.adler32(rows))
        assert (decode_simple_png(sound[:33] + chunk(b"IDAT", data) + sound[-12:], 1, 10**6) is not None) == simple
