"""Images that are damaged, malicious or unusual."""

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
    IMAGE_REQUESTS,
    MODELS,
    Case,
    body_image,
    form_image,
    json_batch_image,
    v1_base64_image,
    v2_bytes_image,
)
from tests.reliability.malformed_requests.valid_inputs import exif_orientation
from tests.support.images import random_pixels
from tests.support.png_writer import END, GRAY, RGB, chunk, encode_png, header

BODY_BYTES = 16 * 1024 * 1024
LIMIT_SIDE = 5000  # the square of this is the service's default pixel limit
SIDE = 65_500
TEXTS = (b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"PK\3\4", b"\0" * 4096)
OTHER_FORMATS = (
    b"II*\0",
    b"MM\0*",
    b"8BPS",
    b"\0\0\1\0",
    b"\0\0\0\x18ftypheic",
    b"\xff\x0a",
    b"\x76\x2f\x31\x01",
    b"P6 9 9 255 ",
)


def mutated_image(random: Generator, valid: dict[str, bytes]) -> Case:
    """Returns a valid image with one mutation, sent in one of the supported ways."""
    name = mutations.pick(random, list(valid))
    mutation = mutations.pick(random, list(mutations.MUTATIONS))
    data = mutations.MUTATIONS[mutation](random, valid[name])
    request_with = IMAGE_REQUESTS[random.integers(len(IMAGE_REQUESTS))]
    return request_with(f"{name.split()[0]}, {mutation}", data, mutations.pick(random, list(MODELS)))


def polyglot(random: Generator, valid: dict[str, bytes]) -> Case:
    """Returns two files joined into one: two images of different formats, or an image and another file."""
    files = [*valid.values(), *TEXTS, *OTHER_FORMATS]
    first, second = (files[random.integers(len(files))] for _ in range(2))
    joined = first + second if random.random() < 0.5 else mutations.splice(random, first + b"\0", [second + b"\0"])
    return IMAGE_REQUESTS[random.integers(len(IMAGE_REQUESTS))]("polyglot", joined)


def format_prefix_only(random: Generator, valid: dict[str, bytes]) -> Case:
    """Returns the magic bytes of a format, followed by other data."""
    heads = [data[:12] for data in valid.values()] + list(OTHER_FORMATS) + list(TEXTS)
    head = heads[random.integers(len(heads))]
    return body_image("wrong type", head[: random.integers(1, 13)] + random.bytes(random.integers(3000)))


def invalid_png_header(random: Generator, valid: dict[str, bytes]) -> Case:
    """Returns a PNG with random header values and the correct checksum."""
    side = (0, 1, 2, 8, 65535, 2**31 - 1, 2**31, 2**32 - 1)
    width, height = int(mutations.pick(random, side)), int(mutations.pick(random, side))
    depth, color = int(random.integers(18)), int(random.integers(8))
    fields = struct.pack(">LLBBBBB", width, height, depth, color, *random.integers(0, 3, 3).tolist())
    lines = zlib.compress(bytes(int(random.integers(2000))))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields) + chunk(b"IDAT", lines) + END
    return body_image("header with false dimensions", data, mutations.pick(random, list(MODELS)))


def crafted_cases() -> Iterator[Case]:
    """Yields images that are designed to be as expensive as possible, each once or a few times. Some are valid but
    large."""
    yield from _false_dimensions()
    yield from _one_pixel_wide()
    yield from _animations()
    yield from _many_small_pieces()
    for name, data in images_at_pixel_limit().items():
        yield body_image(f"at the limit of pixels: {name}", data)
    for data in images_at_pixel_limit().values():
        for request_with in (form_image, json_batch_image, v2_bytes_image, v1_base64_image):
            if len(data) < BODY_BYTES // 2:
                yield request_with("at the limit of pixels, in every way", data)
    for request_with in (json_batch_image, v2_bytes_image, v1_base64_image):
        for name in ("png gray", "webp lossless", "jpeg progressive"):
            data = images_at_pixel_limit()[name]
            yield request_with(
                "many at the limit in one request", data, times=min(1000, BODY_BYTES * 5 // 7 // len(data))
            )


def _false_dimensions() -> Iterator[Case]:
    kind = "header with false dimensions"
    yield body_image(kind, header(SIDE, SIDE) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + END)
    yield body_image(kind, header(2**31 - 1, 4) + chunk(b"IDAT", b"") + END)
    for name, marker, struct_format in (("jpeg", b"\xff\xc0", ">HH"), ("gif", b"GIF8", "<HH")):
        data = valid_inputs.images()[name]
        at = data.index(marker) + (5 if name == "jpeg" else 6)
        for sides in ((SIDE, SIDE), (0, 0), (1, 65535), (65535, 1), (5000, 5000), (LIMIT_SIDE + 1, LIMIT_SIDE)):
            yield body_image(kind, data[:at] + struct.pack(struct_format, *sides) + data[at + 4 :])
    data = valid_inputs.images()["bmp"]
    for sides in ((2**31 - 1, 2**31 - 1), (0, 5), (LIMIT_SIDE, LIMIT_SIDE), (2**31 - 1, -(2**31)), (-8, 8)):
        yield body_image(kind, data[:18] + struct.pack("<ll", *sides) + data[26:])
    data = valid_inputs.images()["webp lossless"]
    for side in (1, LIMIT_SIDE, 16_000):
        yield body_image(kind, data[:21] + struct.pack("<L", (side - 1) | (side - 1) << 14) + data[25:])


def _one_pixel_wide() -> Iterator[Case]:
    for height, width in ((1, 65535), (65535, 1), (2, 12_000_000), (12_000_000, 2), (1, 25_000_000), (1, 1)):
        data = encode_png(np.zeros((height, width, 1), np.uint8), 8, GRAY)
        for model in MODELS:
            yield body_image("one pixel wide or high", data, model)
    for image_format in ("JPEG", "BMP", "GIF", "WEBP"):
        for size in ((1, 16_383), (16_383, 1)):
            yield body_image("one pixel wide or high", _encode(Image.new("RGB", size, "red"), image_format))


def _animations() -> Iterator[Case]:
    frames = [Image.fromarray(random_pixels(16, 16, seed=number)[..., 0]) for number in range(3000)]
    for image_format in ("GIF", "PNG", "WEBP"):
        data = _encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=10)
        for request_with in IMAGE_REQUESTS[1:]:
            yield request_with("thousands of frames", data)


def _many_small_pieces() -> Iterator[Case]:
    """Yields images with as many chunks of the minimum size as possible, alone and many per request."""
    pixels = encode_png(random_pixels(8, 8, 3), 8, RGB)
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
            yield body_image(f"flood: {name}", data)
            if size < BODY_BYTES // 2:
                yield v2_bytes_image("flood in many images", data, times=BODY_BYTES * 9 // 10 // len(data))
    profile = b"a\0\0" + zlib.compress(bytes(200_000_000))
    yield body_image("flood: text and profiles that unpack", start + chunk(b"iCCP", profile) + rest + END)
    yield body_image("flood: text and profiles that unpack", start + chunk(b"zTXt", profile) * 30 + rest + END)


@cache
def images_at_pixel_limit() -> dict[str, bytes]:
    """Returns valid images of every kind with the maximum number of pixels."""
    y, x = np.mgrid[0:LIMIT_SIDE, 0:LIMIT_SIDE]
    photo = Image.fromarray(np.stack([x // 20 % 256, y // 20 % 256, (x + y) // 40 % 256], -1).astype(np.uint8))
    alpha = photo.copy()
    alpha.putalpha(Image.fromarray((x // 20 % 256).astype(np.uint8)))
    webp_size = (LIMIT_SIDE, LIMIT_SIDE // 2)
    return {
        "png gray": _encode(photo.convert("L"), "PNG"),
        "png 16 bits": encode_png((x % 65536)[..., np.newaxis], 16, GRAY),
        "png rgba turned": _encode(alpha, "PNG", compress_level=1, exif=exif_orientation(6)),
        "png palette": _encode(photo.quantize(), "PNG", compress_level=1, transparency=1),
        "jpeg turned": _encode(photo, "JPEG", exif=exif_orientation(5), subsampling=0),
        "jpeg progressive": _encode(
            photo, "JPEG", progressive=True, subsampling=0, quality=95, exif=exif_orientation(7)
        ),
        "jpeg cmyk progressive": _encode(photo.convert("CMYK"), "JPEG", progressive=True, exif=exif_orientation(6)),
        "webp": _encode(photo, "WEBP", method=0, exif=exif_orientation(6)),
        "webp lossless": _encode(photo, "WEBP", lossless=True, method=0, quality=0),
        "webp half": _encode(alpha.resize(webp_size), "WEBP", method=0, exif=exif_orientation(6)),
        "webp half lossless": _encode(alpha.resize(webp_size), "WEBP", lossless=True, method=0, quality=0),
        "webp half animated": _animated_webp(photo.resize(webp_size)),
        "bmp 1 bit": _encode(photo.convert("1"), "BMP"),
        "gif": _encode(photo.quantize(16), "GIF"),
    }


def _animated_webp(photo: Image.Image) -> bytes:
    return _encode(photo, "WEBP", save_all=True, append_images=[photo.rotate(180)], quality=30, method=0)


def _encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()
