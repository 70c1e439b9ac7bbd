"""Images that are damaged, hostile or merely odd."""

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image

from tests.reliability.malformed_requests import mutations, valid_inputs
from tests.reliability.malformed_requests.request_cases import (
    MODELS,
    WAYS_IN,
    Case,
    batch,
    form,
    raw,
    v1_base64,
    v2_bytes,
)
from tests.reliability.malformed_requests.valid_inputs import turned
from tests.support.images import random_pixels
from tests.support.png_writer import END, GREY, RGB, chunk, header, png

BODY_BYTES = 16 * 1024 * 1024
LIMIT_SIDE = 5000  # squared, the most pixels that the service admits unless told otherwise
SIDE = 65_500
TEXTS = (b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"PK\3\4", b"\0" * 4096)
FOREIGN = (
    b"II*\0",
    b"MM\0*",
    b"8BPS",
    b"\0\0\1\0",
    b"\0\0\0\x18ftypheic",
    b"\xff\x0a",
    b"\x76\x2f\x31\x01",
    b"P6 9 9 255 ",
)


def spoilt(random: Generator, sound: dict[str, bytes]) -> Case:
    """A sound image, spoilt in one way, sent in one of the ways in."""
    name = mutations.one_of(random, list(sound))
    how = mutations.one_of(random, list(mutations.WAYS))
    data = mutations.WAYS[how](random, sound[name])
    way = WAYS_IN[random.integers(len(WAYS_IN))]
    return way(f"{name.split()[0]}, {how}", data, mutations.one_of(random, list(MODELS)))


def polyglot(random: Generator, sound: dict[str, bytes]) -> Case:
    """Two files in one, of formats or of what is no image at all."""
    files = [*sound.values(), *TEXTS, *FOREIGN]
    first, second = (files[random.integers(len(files))] for _ in range(2))
    joined = first + second if random.random() < 0.5 else mutations.joined(random, first + b"\0", [second + b"\0"])
    return WAYS_IN[random.integers(len(WAYS_IN))]("polyglot", joined)


def nonsense(random: Generator, sound: dict[str, bytes]) -> Case:
    """The first bytes of a format, and then nothing of it."""
    heads = [data[:12] for data in sound.values()] + list(FOREIGN) + list(TEXTS)
    head = heads[random.integers(len(heads))]
    return raw("wrong type", head[: random.integers(1, 13)] + random.bytes(random.integers(3000)))


def odd_png(random: Generator, sound: dict[str, bytes]) -> Case:
    """A header that says anything, the right checksum behind it."""
    side = (0, 1, 2, 8, 65535, 2**31 - 1, 2**31, 2**32 - 1)
    width, height = int(mutations.one_of(random, side)), int(mutations.one_of(random, side))
    depth, colour = int(random.integers(18)), int(random.integers(8))
    fields = struct.pack(">LLBBBBB", width, height, depth, colour, *random.integers(0, 3, 3).tolist())
    lines = zlib.compress(bytes(int(random.integers(2000))))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields) + chunk(b"IDAT", lines) + END
    return raw("announces what is not there", data, mutations.one_of(random, list(MODELS)))


def crafted() -> Iterator[Case]:
    """Images made to cost as much as one can, each once or a few times; some are sound, and merely large."""
    yield from _announcements()
    yield from _long_and_thin()
    yield from _animations()
    yield from _floods()
    for name, data in large().items():
        yield raw(f"at the limit of pixels: {name}", data)
    for data in large().values():
        for way in (form, batch, v2_bytes, v1_base64):
            if len(data) < BODY_BYTES // 2:
                yield way("at the limit of pixels, in every way", data)
    for way in (batch, v2_bytes, v1_base64):
        for name in ("png grey", "webp lossless", "jpeg progressive"):
            data = large()[name]
            yield way("many at the limit in one request", data, times=min(1000, BODY_BYTES * 5 // 7 // len(data)))


def _announcements() -> Iterator[Case]:
    kind = "announces what is not there"
    yield raw(kind, header(SIDE, SIDE) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + END)
    yield raw(kind, header(2**31 - 1, 4) + chunk(b"IDAT", b"") + END)
    for name, place, packed in (("jpeg", b"\xff\xc0", ">HH"), ("gif", b"GIF8", "<HH")):
        data = valid_inputs.images()[name]
        at = data.index(place) + (5 if name == "jpeg" else 6)
        for sides in ((SIDE, SIDE), (0, 0), (1, 65535), (65535, 1), (5000, 5000), (LIMIT_SIDE + 1, LIMIT_SIDE)):
            yield raw(kind, data[:at] + struct.pack(packed, *sides) + data[at + 4 :])
    data = valid_inputs.images()["bmp"]
    for sides in ((2**31 - 1, 2**31 - 1), (0, 5), (LIMIT_SIDE, LIMIT_SIDE), (2**31 - 1, -(2**31)), (-8, 8)):
        yield raw(kind, data[:18] + struct.pack("<ll", *sides) + data[26:])
    data = valid_inputs.images()["webp lossless"]
    for side in (1, LIMIT_SIDE, 16_000):
        yield raw(kind, data[:21] + struct.pack("<L", (side - 1) | (side - 1) << 14) + data[25:])


def _long_and_thin() -> Iterator[Case]:
    for height, width in ((1, 65535), (65535, 1), (2, 12_000_000), (12_000_000, 2), (1, 25_000_000), (1, 1)):
        data = png(np.zeros((height, width, 1), np.uint8), 8, GREY)
        for model in MODELS:
            yield raw("one pixel wide or high", data, model)
    for image_format in ("JPEG", "BMP", "GIF", "WEBP"):
        for size in ((1, 16_383), (16_383, 1)):
            yield raw("one pixel wide or high", _saved(Image.new("RGB", size, "red"), image_format))


def _animations() -> Iterator[Case]:
    frames = [Image.fromarray(random_pixels(16, 16, seed=number)[..., 0]) for number in range(3000)]
    for image_format in ("GIF", "PNG", "WEBP"):
        data = _saved(frames[0], image_format, save_all=True, append_images=frames[1:], duration=10)
        for way in WAYS_IN[1:]:
            yield way("thousands of frames", data)


def _floods() -> Iterator[Case]:
    """Bodies full of the smallest pieces that a format knows, alone and in many images of one request."""
    pixels = png(random_pixels(8, 8, 3), 8, RGB)
    start, rest = pixels[:33], pixels[33 : -len(END)]
    jpeg, gif = valid_inputs.images()["jpeg"], valid_inputs.images()["gif"]
    kinds = {
        "png chunks": (start, chunk(b"prVt", b""), rest + END),
        "png pieces of pixels": (start + chunk(b"IDAT", b"\x78\x9c"), chunk(b"IDAT", b""), END),
        "png chunks behind": (start + rest, chunk(b"prVt", b""), END),
        "jpeg comments": (jpeg[:2], b"\xff\xfe\0\2", jpeg[2:]),
        "jpeg scans": (jpeg[:-2], jpeg[jpeg.rindex(b"\xff\xda") : -2], jpeg[-2:]),
        "gif extensions": (gif[:-1], b"!\xfe\1a\0", gif[-1:]),
    }
    for name, (before, piece, after) in kinds.items():
        for size in (BODY_BYTES - 2000, 2_000_000, 700_000):
            data = before + piece * ((size - len(before) - len(after)) // len(piece)) + after
            yield raw(f"flood: {name}", data)
            if size < BODY_BYTES // 2:
                yield v2_bytes("flood in many images", data, times=BODY_BYTES * 9 // 10 // len(data))
    profile = b"a\0\0" + zlib.compress(bytes(200_000_000))
    yield raw("flood: text and profiles that unpack", start + chunk(b"iCCP", profile) + rest + END)
    yield raw("flood: text and profiles that unpack", start + chunk(b"zTXt", profile) * 30 + rest + END)


@cache
def large() -> dict[str, bytes]:
    """Sound images of as many pixels as are admitted, of every kind."""
    y, x = np.mgrid[0:LIMIT_SIDE, 0:LIMIT_SIDE]
    photo = Image.fromarray(np.stack([x // 20 % 256, y // 20 % 256, (x + y) // 40 % 256], -1).astype(np.uint8))
    alpha = photo.copy()
    alpha.putalpha(Image.fromarray((x // 20 % 256).astype(np.uint8)))
    webp_size = (LIMIT_SIDE, LIMIT_SIDE // 2)
    return {
        "png grey": _saved(photo.convert("L"), "PNG"),
        "png 16 bits": png((x % 65536)[..., np.newaxis], 16, GREY),
        "png rgba turned": _saved(alpha, "PNG", compress_level=1, exif=turned(6)),
        "png palette": _saved(photo.quantize(), "PNG", compress_level=1, transparency=1),
        "jpeg turned": _saved(photo, "JPEG", exif=turned(5), subsampling=0),
        "jpeg progressive": _saved(photo, "JPEG", progressive=True, subsampling=0, quality=95, exif=turned(7)),
        "jpeg cmyk progressive": _saved(photo.convert("CMYK"), "JPEG", progressive=True, exif=turned(6)),
        "webp": _saved(photo, "WEBP", method=0, exif=turned(6)),
        "webp lossless": _saved(photo, "WEBP", lossless=True, method=0, quality=0),
        "webp half": _saved(alpha.resize(webp_size), "WEBP", method=0, exif=turned(6)),
        "webp half lossless": _saved(alpha.resize(webp_size), "WEBP", lossless=True, method=0, quality=0),
        "webp half animated": _animated(photo.resize(webp_size)),
        "bmp 1 bit": _saved(photo.convert("1"), "BMP"),
        "gif": _saved(photo.quantize(16), "GIF"),
    }


def _animated(photo: Image.Image) -> bytes:
    return _saved(photo, "WEBP", save_all=True, append_images=[photo.rotate(180)], quality=30, method=0)


def _saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()
