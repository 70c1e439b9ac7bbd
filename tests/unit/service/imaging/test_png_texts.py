"""Of the compressed parts of a PNG, only the first EXIF and XMP data are unpacked."""

import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.imaging.decode import decode
from service.imaging.png_texts import MAX_INSPECTED_CHUNKS, is_slow_to_open
from tests.support.png_writer import END, RGB, chunk, encode_png, header
from tests.unit.service.pixels import BLACK, assert_pixels_close, encode_image, exif_bytes, noise_image

PIXELS = 10**6
UNPACKED = zlib.compress(bytes(1_000_000))
PROFILE = chunk(b"iCCP", b"name\0\0" + UNPACKED)
OTHER_TEXTS = chunk(b"zTXt", b"Comment\0\0" + UNPACKED) + chunk(b"iTXt", b"Comment\0\1\0\0\0" + UNPACKED)
EXIF_HEX = f"\nexif\n{len(exif_bytes(6)):8}\n{exif_bytes(6).hex()}\n".encode()
EXIF = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(EXIF_HEX))
XMP = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'<x tiff:Orientation="6"/>'))


@pytest.fixture
def unpacked_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the sizes to which Pillow unpacks chunks."""
    sizes, unpack = list[int](), PngImagePlugin._safe_zlib_decompress

    def record(*args: Any) -> bytes:
        sizes.append(0)
        unpacked = unpack(*args)
        sizes[-1] = len(unpacked)
        return unpacked

    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", record)
    return sizes


@pytest.mark.parametrize("is_behind_the_pixels", [False, True])
def test_texts_and_profiles_that_nobody_reads_are_not_unpacked(
    unpacked_bytes: list[int], is_behind_the_pixels: bool
) -> None:
    """Each kilobyte unpacks to a megabyte, which takes 3 ms."""
    pixels, others = chunk(b"IDAT", zlib.compress(bytes(20))), PROFILE + 40 * OTHER_TEXTS
    file = header(4, 4) + (pixels + others if is_behind_the_pixels else others + pixels) + END
    assert decode(file, 1, BLACK, PIXELS).shape == (4, 4, 1)
    assert unpacked_bytes == []


@pytest.mark.parametrize("text", [EXIF, XMP], ids=["EXIF", "XMP"])
def test_only_the_first_text_with_the_orientation_is_unpacked(unpacked_bytes: list[int], text: bytes) -> None:
    file = encode_png(noise_image(), 8, RGB, extra=PROFILE + OTHER_TEXTS + text * 20)
    assert is_slow_to_open(file)
    assert_pixels_close(decode(file, 3, BLACK, PIXELS), np.rot90(noise_image(), -1), 0)
    assert len(unpacked_bytes) == 1


@pytest.mark.parametrize("is_behind_the_pixels", [False, True])
@pytest.mark.parametrize("packed", [UNPACKED[:-4] + bytes(4), zlib.compress(b"\xff" * 1_000_000)])
def test_damaged_texts_are_unpacked_once(unpacked_bytes: list[int], packed: bytes, is_behind_the_pixels: bool) -> None:
    """Pillow does not keep a text with a wrong checksum, or one that is not UTF-8."""
    texts = (
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed) + chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)
    ) * 20
    pixels = chunk(b"IDAT", zlib.compress(bytes(20)))
    file = header(4, 4) + (pixels + texts if is_behind_the_pixels else texts + pixels) + END
    assert decode(file, 1, BLACK, PIXELS).shape == (4, 4, 1)
    assert len(unpacked_bytes) == 2


def test_few_chunks_are_inspected() -> None:
    """A search through a large file would stall the event loop."""

    class Bytes(bytes):
        reads = 0

        def __getitem__(self, key: Any) -> Any:
            Bytes.reads += 1
            return super().__getitem__(key)

    start, pixels = header(4, 4), chunk(b"IDAT", bytes(8192))
    for chunks, is_slow in ((MAX_INSPECTED_CHUNKS - 2, False), (MAX_INSPECTED_CHUNKS, True), (5000, True)):
        Bytes.reads = 0
        assert is_slow_to_open(Bytes(start + pixels * chunks + END)) == is_slow
        assert Bytes.reads <= 2 * MAX_INSPECTED_CHUNKS
    assert not is_slow_to_open(start + pixels + END + EXIF[:3])
    assert is_slow_to_open(start + pixels + EXIF)


def test_only_a_png_with_compressed_texts_is_slow_to_open() -> None:
    image = Image.fromarray(noise_image())
    assert not is_slow_to_open(encode_image(image, "PNG"))
    assert not is_slow_to_open(encode_image(image, "JPEG") + EXIF)
