"""Damaged, foreign and malicious bytes raise a ConvoyError quickly, and never give a partial image."""

import base64
import contextlib
import io
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from service.errors import BadImage, ConvoyError, UnsupportedImage
from service.imaging.decode import FORMATS, SEARCHED_BYTES, decode
from tests.support.png_writer import (
    END,
    GRAY,
    GRAY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    encode_png,
    header,
    transparent_value,
)
from tests.unit.service.pixels import (
    BLACK,
    HEIGHT,
    MAX_PIXELS,
    WIDTH,
    encode_image,
    exif_bytes,
    gradient_image,
    noise_image,
    random_samples,
)

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

FRAMES = [Image.fromarray(noise_image(seed=seed)) for seed in (1, 2)]
PALETTED = [frame.convert("P") for frame in FRAMES]
SMOOTH = Image.fromarray(gradient_image(24, 32))

KINDS = {
    "png gray 2 bit transparent": encode_png(random_samples(2, 1), 2, GRAY, transparent=transparent_value(1)),
    "png gray 16 bit transparent": encode_png(random_samples(16, 1), 16, GRAY, transparent=transparent_value(1)),
    "png gray alpha": encode_png(random_samples(8, 2), 8, GRAY_ALPHA),
    "png rgb 16 bit": encode_png(random_samples(16, 3), 16, RGB),
    "png rgba interlaced": encode_png(random_samples(8, 4), 8, RGB_ALPHA, interlaced=True),
    "png palette": encode_png(
        random_samples(4, 1), 4, PALETTE, palette=noise_image(16, 1)[:, 0], transparent=b"\0\x80"
    ),
    "png animated": encode_image(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
    "jpeg": encode_image(SMOOTH, "JPEG"),
    "jpeg gray": encode_image(SMOOTH.convert("L"), "JPEG"),
    "jpeg cmyk": encode_image(SMOOTH.convert("CMYK"), "JPEG"),
    "jpeg progressive turned": encode_image(SMOOTH, "JPEG", progressive=True, exif=b"Exif\0\0" + exif_bytes(6)),
    "webp": encode_image(SMOOTH, "WEBP"),
    "webp lossless alpha": encode_image(Image.fromarray(noise_image(channels=4)), "WEBP", lossless=True),
    "webp animated": encode_image(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
    "bmp": encode_image(FRAMES[0], "BMP"),
    "bmp palette": encode_image(PALETTED[0], "BMP"),
    "gif": encode_image(PALETTED[0], "GIF", transparency=3),
    "gif animated": encode_image(PALETTED[0], "GIF", save_all=True, append_images=PALETTED[1:]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_image_is_rejected_or_complete(kind: str) -> None:
    file = KINDS[kind]
    whole = decode(file, 3, BLACK, MAX_PIXELS)
    refusals = []
    for length in range(len(file)):
        try:
            decoded = decode(file[:length], 3, BLACK, MAX_PIXELS)
        except BadImage as error:
            refusals.append(error.message)
        else:
            np.testing.assert_array_equal(decoded, whole)
    assert len(refusals) > 40  # at least for every cut in the headers
    assert all(message.endswith(".") for message in refusals)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_bit_flips_end_in_pixels_or_our_own_error(kind: str, data: st.DataObject) -> None:
    file = bytearray(KINDS[kind])
    places = st.tuples(st.integers(0, len(file) - 1), st.integers(1, 255))
    for place, flip in data.draw(st.lists(places, min_size=1, max_size=8)):
        file[place] ^= flip
    assert_pixels_or_our_own_error(bytes(file))


HEADS = [file[:12] for file in KINDS.values()] + [b""]


@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_random_bytes_end_in_our_own_error(head: bytes, tail: bytes) -> None:
    assert_pixels_or_our_own_error(head + tail)


def assert_pixels_or_our_own_error(file: bytes) -> None:
    try:
        decoded = decode(file, 3, BLACK, MAX_PIXELS)
    except ConvoyError:
        pass
    else:
        assert decoded.dtype == np.uint8
        assert decoded.ndim == 3
        assert decoded.shape[2] == 3
        assert 0 < decoded.shape[0] * decoded.shape[1] <= MAX_PIXELS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", [bytes(50), b"PK\3\4 an archive", b"<script>", KINDS["png animated"]])
def test_trailing_data_is_ignored(kind: str, tail: bytes) -> None:
    np.testing.assert_array_equal(
        decode(KINDS[kind] + tail, 3, BLACK, MAX_PIXELS), decode(KINDS[kind], 3, BLACK, MAX_PIXELS)
    )


def test_a_color_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for image_format in ("PNG", "JPEG", "WEBP"):
        plain = decode(encode_image(SMOOTH, image_format), 3, BLACK, MAX_PIXELS)
        np.testing.assert_array_equal(
            decode(encode_image(SMOOTH, image_format, icc_profile=profile), 3, BLACK, MAX_PIXELS), plain
        )


ZERO_SIZED = {
    "png": header(0, 5) + END,
    "jpeg": KINDS["jpeg"].replace(struct.pack(">HH", 24, 32), bytes(4)),
    "bmp": KINDS["bmp"].replace(struct.pack("<LL", WIDTH, HEIGHT), struct.pack("<LL", 0, 5)),
    "gif": b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\2\2D\1\0;",
    "webp": KINDS["webp"].replace(struct.pack("<HH", 32, 24), bytes(4)),
}


@pytest.mark.parametrize("image_format", ZERO_SIZED)
def test_an_image_without_pixels_is_rejected(image_format: str) -> None:
    assert ZERO_SIZED[image_format] not in KINDS.values()
    with pytest.raises(BadImage):
        decode(ZERO_SIZED[image_format], 3, BLACK, MAX_PIXELS)


def test_an_empty_body_is_not_an_image() -> None:
    with pytest.raises(BadImage, match="empty"):
        decode(b"", 1, BLACK, MAX_PIXELS)


@pytest.mark.parametrize(
    "text", [b"hello", b"<!doctype html><p>404", b'{"image": "abc"}', b"data:image/png;base64,iVBORw0KGgo="]
)
def test_text_is_not_an_image(text: bytes) -> None:
    with pytest.raises(BadImage, match=r"not an image|not the image itself"):
        decode(text, 1, BLACK, MAX_PIXELS)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS", "PSD"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'\xef\xbb\xbf\n<?xml version="1.0"?>\n<!-- by hand -->\n<svg/>', "SVG"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"\0\0\2\0\1\0", "CUR"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "FPX"),
        (np.array([1, 8, 8, 8, 1, 1], ">f4").tobytes(), "SPIDER"),
        (b"SIMPLE  =", "FITS"),
        (b"\0\0\0\0\x11\xaf", "FLI"),
        (bytes(20) + b"GIMP", "GIMP brush"),
        (b"GRIB", "GRIB"),
        (b"P7 332\n", "XV thumbnail"),
        (b"\xd7\xcd\xc6\x9a\0\0", "WMF"),
        (bytes(2048) + b"PCD_", "PCD"),
    ],
)
def test_a_format_that_is_not_read_is_reported(start: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=name):
        decode(start + bytes(64), 1, BLACK, MAX_PIXELS)


NOT_WRITABLE = {"BUFR", "GRIB", "HDF5", "WMF"}  # Pillow needs a program for these
WITHOUT_SIGNATURE = {"PALM"}
Image.init()


@pytest.mark.parametrize(
    "file_format", sorted(Image.SAVE.keys() - {*FORMATS, "MPO"} - NOT_WRITABLE - WITHOUT_SIGNATURE)
)
def test_every_other_format_that_pillow_writes_is_recognized(file_format: str) -> None:
    file = io.BytesIO()
    modes = {"MSP": "1", "XBM": "1", "BLP": "P", "SPIDER": "F"}
    SMOOTH.convert(modes.get(file_format, "RGB")).save(file, file_format)
    with pytest.raises(UnsupportedImage, match="The file's format is "):
        decode(file.getvalue(), 1, BLACK, MAX_PIXELS)


@pytest.mark.parametrize("text", [b"", b"made by hand"])
@pytest.mark.parametrize("compression", [None, "tga_rle"])
@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_tga_is_recognized_without_its_footer(mode: str, compression: str | None, text: bytes) -> None:
    """The header of a TGA without a palette and without a text begins like the header of a cursor."""
    file = io.BytesIO()
    SMOOTH.convert(mode).save(file, "TGA", compression=compression, id_section=text)
    encoded, footer, _ = file.getvalue().rpartition(bytes(8) + b"TRUEVISION-XFILE.\0")
    assert footer
    with pytest.raises(UnsupportedImage, match="The file's format is TGA"):
        decode(encoded, 1, BLACK, MAX_PIXELS)


PREFIXES = [
    b"",
    b"data:image/png;base64,",
    b"\n",
    b"data:;base64, ",
    b"DATA:IMAGE/PNG;BASE64,",
    b'"',
    b'"data:a/b;base64,',
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", ["png rgb 16 bit", "jpeg", "webp", "bmp", "gif"])
def test_an_image_in_base64_is_recognized(kind: str, prefix: bytes) -> None:
    with pytest.raises(BadImage, match="an image in base64") as raised:
        decode(prefix + base64.b64encode(KINDS[kind]), 1, BLACK, MAX_PIXELS)
    assert "classify/batch" in raised.value.hint


@pytest.mark.parametrize("kind", ["png rgb 16 bit", "jpeg"])
def test_base64_with_the_escaped_slashes_of_json_is_recognized(kind: str) -> None:
    text = b"data:image/png;base64," + base64.b64encode(KINDS[kind])
    with pytest.raises(BadImage, match="an image in base64"):
        decode(b'"' + text.replace(b"/", b"\\/") + b'"', 1, BLACK, MAX_PIXELS)


def test_a_pointer_of_git_lfs_is_recognized() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(BadImage, match="a Git LFS pointer") as raised:
        decode(pointer, 1, BLACK, MAX_PIXELS)
    assert "git lfs pull" in raised.value.hint


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"data:image/png,%89PNG", "a data URL"),
        (b"Data:image/tiff;base64,SUkqAA==", "a data URL"),
        (b'"data:image\\/tiff;base64,SUkqAA=="', "a data URL"),
        (b' {"images": []}', "look like JSON"),
        (b' "a picture" ', "look like JSON"),
        (b'"' + b"a" * 5000 + b'"', "look like JSON"),
    ],
)
def test_other_forms_of_an_image_are_recognized(body: bytes, message: str) -> None:
    with pytest.raises(BadImage, match=message) as raised:
        decode(body, 1, BLACK, MAX_PIXELS)
    assert "classify/batch" in raised.value.hint


def test_only_the_start_of_an_unreadable_file_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of 16 MB of spaces would stall the event loop for half a second."""
    searched_bytes = list[int]()

    def record_length(data: bytes) -> None:
        searched_bytes.append(len(data))

    monkeypatch.setattr("service.imaging.decode.unsupported_format", record_length)
    with pytest.raises(BadImage, match="not an image, or its header is damaged"):
        decode(b" " * SEARCHED_BYTES + b"{" * SEARCHED_BYTES, 1, BLACK, MAX_PIXELS)
    assert searched_bytes == [SEARCHED_BYTES]


@pytest.mark.parametrize("text", [b"BM is a motorcycle club", b"Qk", b"/9j/ is a path", b"P5x", b"#define x"])
def test_an_ordinary_text_is_not_an_image(text: bytes) -> None:
    with pytest.raises(BadImage, match=r"The bytes are not an image, or|header is damaged"):
        decode(text, 1, BLACK, MAX_PIXELS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_pillow_is_in_an_error(kind: str) -> None:
    own = re.compile(r"The (image is damaged or truncated|(image's|bytes are not an image, or its) header is [a-z]+)\.")
    for length in range(30, len(KINDS[kind]), 7):
        with contextlib.suppress(BadImage):
            decode(KINDS[kind][:length], 3, BLACK, MAX_PIXELS)
            continue
        with pytest.raises(BadImage) as raised:
            decode(KINDS[kind][:length], 3, BLACK, MAX_PIXELS)
        assert own.fullmatch(raised.value.message)
