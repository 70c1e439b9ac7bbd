"""The attacks: the bytes that each connection sends, the number of connections, and whether they read responses."""

import base64
import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from PIL import Image

from tests.support.images import encode
from tests.support.model_versions import write_version
from tests.support.png_writer import END, chunk, header

CLASSES, LARGE_SIDE_PX, IMAGES, MAX_CONNECTIONS = 1000, 512, 1024, 200
BODY_BYTES, INPUT_BYTES = 100_000_000, 150_000_000
OTHER_BYTES = 300_000_000
"""Additional memory for parsing, a running batch, decoders, threads, and memory that malloc keeps."""
SETTINGS = {"max_inflight_body_bytes": BODY_BYTES, "max_input_bytes": INPUT_BYTES, "max_connections": MAX_CONNECTIONS}
CLASSIFY = "/api/v1/models/linear/classify"
LARGE, WIDE = "/api/v1/models/large/classify", "/v1/models/wide:predict"
EXPLAIN, EXPLAIN_LARGE = "/api/v1/models/linear/explain", "/api/v1/models/large/explain"
SMALL_IMAGE = encode(np.zeros((9, 9, 1), np.uint8), "PNG")


class Attack(NamedTuple):
    """An attack. With `hangs_up` each connection is closed at once. Otherwise connections are read and renewed
    (`is_read`), or only held."""

    data: bytes
    connections: int
    is_read: bool = True
    hangs_up: bool = False


def write_models(root: Path) -> None:
    """Writes a small model, a model with many classes, and a model for large images."""
    write_version(root, "linear")
    write_version(root, "wide", classes=CLASSES)
    write_version(root, "large", shape=(LARGE_SIDE_PX, LARGE_SIDE_PX, 3))


def client_requests() -> list[httpx.Request]:
    """Returns the requests that a client other than the attacker sends in turn: a small image, and a form with a photo
    of 1.2 megapixels and 300 KB, which needs memory for its body, the parsing thread and a decoder."""
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    photo = Image.fromarray(pixels).resize((1280, 960), Image.Resampling.BICUBIC)
    form = {"file": encode(np.asarray(photo), "JPEG", quality=85)}
    url = f"http://convoy{CLASSIFY}"
    return [httpx.Request("POST", url, content=encode(pixels, "JPEG")), httpx.Request("POST", url, files=form)]


def post(path: str, body: bytes, headers: str = "", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n".encode() + body


def webp_with_a_large_canvas(side: int = 3535) -> bytes:
    """Returns a file of about 100 bytes whose header states 12.5 megapixels. Only a corner has content."""
    frames = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (10, 200)]
    file = encode(np.asarray(frames[0])[..., np.newaxis], "WEBP", save_all=True, append_images=frames[1:])
    return file[:24] + (side - 1).to_bytes(3, "little") * 2 + file[30:]


def png_with_many_profiles(count: int = 60) -> bytes:
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1_000_000)))
    return header(5, 5) + profile * count + chunk(b"IDAT", zlib.compress(bytes(30))) + END


def png_with_many_exif_fields(count: int = 40_000) -> bytes:
    """Returns a file of 3 KB with EXIF data in a compressed text chunk."""
    exif = b"II*\0" + struct.pack("<LH", 8, count) + struct.pack("<HHLL", 1000, 3, 1_000_000, 8) * count
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n\n" + exif.hex().encode(), 9))
    return header(8, 8) + text + chunk(b"IDAT", zlib.compress(bytes(72))) + END


def png_with_many_texts(count: int = 20) -> bytes:
    """Returns a file of 41 KB whose texts and color profile unpack to 41 MB."""
    packed = zlib.compress(bytes(1_000_000))
    texts = chunk(b"zTXt", b"key\0\0" + packed) + chunk(b"iTXt", b"key\0\1\0\0\0" + packed)
    profile = chunk(b"iCCP", b"name\0\0" + packed)
    return header(5, 5) + profile + texts * count + chunk(b"IDAT", zlib.compress(bytes(30))) + END


def png_with_damaged_texts(count: int = 30) -> bytes:
    """Returns a file of 31 KB whose XMP data is no UTF-8, so that Pillow unpacks it without keeping it."""
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"\xff" * 1_000_000))
    return header(5, 5) + text * count + chunk(b"IDAT", zlib.compress(bytes(30))) + END


def _packed(path: str, document: object) -> bytes:
    """Returns a request with a compressed body: these bytes, or a JSON document."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return post(path, gzip.compress(data, 9), "Content-Type: application/json\r\nContent-Encoding: gzip\r\n")


_TENSOR = np.zeros((8, 8, 1), np.uint8).tolist()
_PIXEL = {"data": base64.b64encode(encode(np.zeros((1, 1, 1), np.uint8), "PNG")).decode()}
_ALL_CLASSES = {"instances": [_TENSOR] * IMAGES, "parameters": {"top_k": 1_000_000}}
_ALL_CLASSES_V2 = {
    "inputs": [{"name": "image", "shape": [IMAGES, 8, 8, 1], "datatype": "UINT8", "data": [0] * IMAGES * 64}],
    "outputs": [{"name": "probabilities", "parameters": {"classification": CLASSES}}],
}
_WAITING_IMAGE = webp_with_a_large_canvas().ljust(1 << 20, b"\0")
_MEMBERS = b'{"parameters":{' + b",".join([b'"":0'] * 3_300_000) + b"}}"

IMAGE_ATTACKS = {
    "a large canvas": Attack(post(CLASSIFY, webp_with_a_large_canvas()), 60),
    "many profiles": Attack(post(CLASSIFY, png_with_many_profiles()), 2),
    "many EXIF fields": Attack(post(CLASSIFY, png_with_many_exif_fields()), 60),
    "many texts": Attack(post(CLASSIFY, png_with_many_texts()), 60),
    "many damaged texts": Attack(post(CLASSIFY, png_with_damaged_texts()), 60),
    "explanations": Attack(post(EXPLAIN, SMALL_IMAGE), 60),
    "explanations of a large input": Attack(post(f"{EXPLAIN_LARGE}?method=input", SMALL_IMAGE), 60),
}
MEMORY_ATTACKS = {
    "all classes by name": Attack(_packed(WIDE, _ALL_CLASSES), 4),
    "answers that are not read": Attack(_packed(WIDE, {"instances": [_TENSOR] * IMAGES}), 40, is_read=False),
    "all classes by name, V2": Attack(_packed("/v2/models/wide/infer", _ALL_CLASSES_V2), 4),
    "short strings": Attack(_packed("/v1/models/linear:predict", b'{"a":[' + b'"",' * 300_000 + b'""]}'), 20),
    "backslashes": Attack(_packed("/v1/models/linear:predict", b'{"a":"' + b"\\" * 1_048_000 + b'"}'), 20),
    "bodies that wait": Attack(_packed(CLASSIFY, _WAITING_IMAGE), MAX_CONNECTIONS // 2),
    "members of an object": Attack(_packed("/v2/models/linear/infer", _MEMBERS), 8),
    "one pixel for a large input": Attack(_packed(f"{LARGE}/batch", {"images": [_PIXEL] * IMAGES}), 4),
    "as many as fit": Attack(
        _packed(f"{LARGE}/batch", {"images": [_PIXEL] * (INPUT_BYTES // (3 * LARGE_SIDE_PX**2))}), 8
    ),
    "compressed bodies that are no image": Attack(_packed(CLASSIFY, b" " * (1 << 20)), 20),
    "faults in compressed JSON": Attack(_packed("/v1/models/linear:predict", b"[" + b"1e999," * 42_000), 20),
    "bodies that stop": Attack(post(CLASSIFY, bytes(5_000_000), length=15_000_000), 40, is_read=False),
    "bodies of one byte": Attack(post(CLASSIFY, b"x", length=1000), 2 * MAX_CONNECTIONS, is_read=False),
    "empty lines": Attack(b"\r\n", 2 * MAX_CONNECTIONS, is_read=False),
    "malformed requests": Attack(b"no HTTP\r\n\r\n", 60),
    "hanging up": Attack(post(LARGE, encode(np.zeros((90, 90, 3), np.uint8), "PNG")), 1, hangs_up=True),
}
