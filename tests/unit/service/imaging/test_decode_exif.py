"""Images are rotated according to their EXIF orientation, and damaged EXIF data is ignored."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffTags

from service.imaging.decode import decode
from service.imaging.orientation import MAX_EXIF_FIELDS
from tests.support.png_writer import GRAY, RGB, chunk, encode_png, transparent_value
from tests.unit.service.pixels import (
    BLACK,
    MAX_PIXELS,
    WHITE,
    Array,
    assert_pixels_close,
    encode_image,
    exif_bytes,
    noise_image,
    random_samples,
)

TO_UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def with_exif(image_format: str, pixels: NDArray[np.uint8], data: bytes) -> bytes:
    if image_format == "PNG":
        return encode_png(pixels, 8, RGB, extra=chunk(b"eXIf", data))
    return encode_image(Image.fromarray(pixels), image_format, exif=b"Exif\0\0" + data, lossless=True)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("orientation", TO_UPRIGHT)
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "JPEG"])
def test_a_turned_image_is_set_upright(image_format: str, orientation: int, order: str) -> None:
    stored = decode(with_exif(image_format, noise_image(), exif_bytes(1, order)), 3, BLACK, MAX_PIXELS)
    decoded = decode(with_exif(image_format, noise_image(), exif_bytes(orientation, order)), 3, BLACK, MAX_PIXELS)
    assert_pixels_close(decoded, TO_UPRIGHT[orientation](stored), 0)
    if image_format != "JPEG":
        assert_pixels_close(stored, noise_image(), 0)


def test_a_turned_image_keeps_its_transparency() -> None:
    values = random_samples(2, 1)
    file = encode_png(values, 2, GRAY, transparent=transparent_value(1), extra=chunk(b"eXIf", exif_bytes(6)))
    assert_pixels_close(decode(file, 1, WHITE, MAX_PIXELS), np.rot90(np.where(values == 1, WHITE, values * 85), -1))


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"II*\0",
        b"nonsense" * 9,
        exif_bytes(6)[:15],
        exif_bytes(0),
        exif_bytes(9),
        exif_bytes(65535),
        exif_bytes(6).replace(b"\x12\x01\x03", b"\x12\x01\x63"),
    ],
    ids=["empty", "header only", "nonsense", "truncated", "0", "9", "65535", "unknown type"],
)
@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_does_not_rotate_an_image(image_format: str, damaged: bytes) -> None:
    expected = decode(with_exif(image_format, noise_image(), exif_bytes(1)), 3, BLACK, MAX_PIXELS)
    assert_pixels_close(decode(with_exif(image_format, noise_image(), damaged), 3, BLACK, MAX_PIXELS), expected, 0)


def test_exif_that_could_not_be_written_again_still_turns() -> None:
    width_as_text = struct.pack("<HHL4s", 0x0100, 2, 3, b"a\xffb")
    file = with_exif("PNG", noise_image(), exif_bytes(6, others=width_as_text))
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), np.rot90(noise_image(), -1), 0)


def with_raw_profile(pixels: NDArray[np.uint8], data: bytes) -> bytes:
    """Encodes a PNG with EXIF data as ImageMagick writes it: as hexadecimal digits in a compressed text."""
    digits = f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()
    return encode_png(pixels, 8, RGB, extra=chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(digits)))


@pytest.fixture
def read_tags(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the tags of the EXIF fields that Pillow reads."""
    tags = list[int]()
    lookup = TiffTags.lookup

    def record_tag(tag: int, group: int | None = None) -> TiffTags.TagInfo:
        tags.append(tag)
        return lookup(tag, group)

    monkeypatch.setattr(TiffTags, "lookup", record_tag)
    return tags


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("image_format", ["PNG", "PNG text", "WEBP", "JPEG"])
def test_a_directory_of_many_fields_costs_as_much_as_one_of_a_hundred(
    image_format: str, order: str, read_tags: list[int]
) -> None:
    """Fields are sorted by their tags, so the orientation is one of the first."""

    def encode(data: bytes) -> bytes:
        is_text = image_format == "PNG text"
        return with_raw_profile(noise_image(), data) if is_text else with_exif(image_format, noise_image(), data)

    fields = b"".join(struct.pack(f"{order}HHLL", 1000 + number, 3, 10**6, 8) for number in range(5000))
    file, expected = encode(exif_bytes(6, order, others=fields)), decode(encode(exif_bytes(6)), 3, BLACK, MAX_PIXELS)
    read_tags.clear()
    assert_pixels_close(decode(file, 3, BLACK, MAX_PIXELS), expected, 0)
    assert len(set(read_tags)) == MAX_EXIF_FIELDS
    assert len(read_tags) <= MAX_EXIF_FIELDS + 10  # fields whose values were requested are looked up again
