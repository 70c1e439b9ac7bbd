"""Valid images of every kind that the service reads, and valid bodies, as input for mutations. All images are drawn in
code."""

import io
import json
import struct
from base64 import b64encode

import numpy as np
from PIL import Image

from tests.support.images import encode, random_pixels
from tests.support.png_writer import GRAY, GRAY_ALPHA, PALETTE, RGB, RGB_ALPHA, encode_png, transparent_value

SHAPE = (8, 8, 1)
"""Shape of the model input for which the bodies are made."""


def draw_photo(height: int = 48, width: int = 64) -> Image.Image:
    """Draws color gradients with some noise, the content for which lossy formats are designed."""
    y, x = np.mgrid[0:height, 0:width]
    ramps = np.stack([x * 255 // width, 255 - y * 255 // height, (x + y) % 256], -1)
    return Image.fromarray(((ramps + random_pixels(height, width, 3) // 8) % 256).astype(np.uint8))


def images() -> dict[str, bytes]:
    """Returns small files by kind. The first word of each kind is the format."""
    return _pngs() | _jpegs() | _others()


def _pngs() -> dict[str, bytes]:
    values = {depth: np.random.default_rng(depth).integers(0, 2**depth, (11, 13, 4)) for depth in (1, 2, 4, 8, 16)}
    palette = random_pixels(16, 1, 3)[:, 0]
    frames = [draw_photo(24, 32).rotate(n * 30) for n in range(3)]
    return {
        "png gray": encode_png(values[8][..., :1], 8, GRAY),
        "png 1 bit": encode_png(values[1][..., :1], 1, GRAY),
        "png 2 bits transparent": encode_png(values[2][..., :1], 2, GRAY, transparent=transparent_value(1)),
        "png 16 bits": encode_png(values[16][..., :1], 16, GRAY),
        "png gray alpha": encode_png(values[8][..., :2], 8, GRAY_ALPHA),
        "png rgb": encode_png(values[8][..., :3], 8, RGB),
        "png rgb 16 bits": encode_png(values[16][..., :3], 16, RGB),
        "png rgba interlaced": encode_png(values[8], 8, RGB_ALPHA, interlaced=True),
        "png palette": encode_png(values[4][..., :1], 4, PALETTE, palette=palette, transparent=b"\0\x80"),
        "png animated": _encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "png model input": encode(random_pixels(*SHAPE)),
    }


def _jpegs() -> dict[str, bytes]:
    return {
        "jpeg": _encode(draw_photo(), "JPEG"),
        "jpeg gray": _encode(draw_photo().convert("L"), "JPEG"),
        "jpeg cmyk": _encode(draw_photo().convert("CMYK"), "JPEG"),
        "jpeg progressive turned": _encode(draw_photo(), "JPEG", progressive=True, exif=exif_orientation(6)),
        "jpeg 4:4:4 with restarts": _encode(draw_photo(), "JPEG", subsampling=0, restart_marker_rows=1),
    }


def _others() -> dict[str, bytes]:
    frames = [draw_photo(24, 32).rotate(n * 30) for n in range(3)]
    rgba = draw_photo().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    animation_options = {"save_all": True, "append_images": frames[1:]}
    return {
        "webp": _encode(draw_photo(), "WEBP"),
        "webp lossless": _encode(draw_photo(), "WEBP", lossless=True),
        "webp alpha": _encode(rgba, "WEBP", exif=exif_orientation(8)),
        "webp animated": _encode(frames[0], "WEBP", **animation_options),
        "bmp": _encode(draw_photo(), "BMP"),
        "bmp palette": _encode(draw_photo().convert("P"), "BMP"),
        "bmp 1 bit": _encode(draw_photo().convert("1"), "BMP"),
        "gif": _encode(draw_photo().convert("P"), "GIF", transparency=3),
        "gif animated": _encode(frames[0], "GIF", **animation_options),
    }


def exif_orientation(orientation: int) -> bytes:
    """Returns EXIF data with an orientation."""
    return b"Exif\0\0II*\0" + struct.pack("<LHHHLHHL", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def tensor() -> dict[str, object]:
    """Returns the input of a V2 request with one image."""
    return {
        "name": "image",
        "datatype": "UINT8",
        "shape": [1, *SHAPE],
        "data": random_pixels(*SHAPE).ravel().tolist(),
    }


def v2_json() -> list[bytes]:
    """Returns valid V2 requests that consist of JSON only."""
    image = b64encode(encode(random_pixels(*SHAPE))).decode()
    images = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [image, image]}
    outputs = [{"name": "probabilities", "parameters": {"classification": 2, "binary_data": False}}]
    full = {"id": "a", "inputs": [tensor()], "outputs": outputs, "parameters": {"timeout": 10**7, "priority": 2}}
    nested = tensor() | {"data": random_pixels(1, 8 * 8).reshape(1, *SHAPE).tolist()}
    return [json.dumps(request).encode() for request in (full, {"inputs": [images]}, {"inputs": [nested]})]


def v2_binary() -> list[tuple[bytes, int]]:
    """Returns valid V2 requests with binary data, each with the length of its JSON."""
    pixels = random_pixels(*SHAPE).tobytes()
    image = encode(random_pixels(*SHAPE))
    elements = (struct.pack("<I", len(image)) + image) * 2
    raw = {"name": "image", "datatype": "UINT8", "shape": [1, *SHAPE], "parameters": {"binary_data_size": len(pixels)}}
    bytes_ = {"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(elements)}}
    heads = [json.dumps({"inputs": [tensor_fields]}).encode() for tensor_fields in (raw, bytes_)]
    return [(heads[0] + pixels, len(heads[0])), (heads[1] + elements, len(heads[1]))]


def v1_json() -> list[bytes]:
    """Returns valid V1 requests."""
    image = {"b64": b64encode(encode(random_pixels(*SHAPE))).decode()}
    pixels = random_pixels(*SHAPE).tolist()
    requests = ({"instances": [pixels, pixels]}, {"inputs": [image]}, {"instances": [{"image": pixels}]})
    return [json.dumps(request | {"parameters": {"top_k": 2}}).encode() for request in requests]
