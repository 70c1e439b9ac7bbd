"""How many images a body holds is known about, before it is read: enough to refuse it cheaply under overload."""

import asyncio
import base64
import json

import httpx
import numpy as np
import pytest

from service.api.http.body import estimate_image_count, estimate_tensor_count, parse_form_files
from tests.support.images import image_bytes

SHAPE = (8, 8, 1)


def multipart_form(count: int) -> tuple[bytes, bytes]:
    request = httpx.Request(
        "POST", "http://x", files=[("files", (f"{n}.png", image_bytes(seed=n))) for n in range(count)]
    )
    return request.headers["content-type"].encode(), request.read()


@pytest.mark.parametrize("count", [1, 2, 64])
def test_images_of_a_form_and_of_json_are_counted(count: int) -> None:
    assert estimate_image_count(*multipart_form(count)) == count
    images = [{"id": str(n), "data": base64.b64encode(image_bytes(seed=n)).decode()} for n in range(count)]
    assert estimate_image_count(b"application/json", json.dumps({"images": images}).encode()) == count


@pytest.mark.parametrize("count", [1, 2, 64])
def test_tensors_in_json_are_never_overestimated(count: int) -> None:
    pixels = np.full((count, *SHAPE), 255).tolist()
    nested = json.dumps({"instances": pixels}).encode()
    flat = {"name": "image", "shape": [count, *SHAPE], "datatype": "UINT8", "data": np.zeros(count * 64, int).tolist()}
    for body in (nested, json.dumps({"inputs": [flat]}, separators=(",", ":")).encode()):
        assert max(1, int(0.85 * count)) <= estimate_tensor_count(body, SHAPE) <= count


def test_a_raw_tensor_and_a_small_body_count_as_one() -> None:
    assert estimate_tensor_count(bytes(64 * 64), SHAPE) == 1
    assert estimate_tensor_count(b'{"instances": [' + b"1," * 20, SHAPE) == 1


@pytest.mark.parametrize("codec", ["", "undefined", "unicode_escape", "punycode", "utf-7"])
@pytest.mark.parametrize("name", ["sieben.png", "é.png", r"\ud800", "+2AA-"])
def test_names_in_a_form_are_utf8_whatever_it_claims(codec: str, name: str) -> None:
    part = f'--x\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\nbytes\r\n--x--\r\n'
    kind = b"multipart/form-data; boundary=x; charset=" + codec.encode()
    assert asyncio.run(parse_form_files(kind, part.encode(), "file", 1)) == [(name, b"bytes")]


@pytest.mark.parametrize("boundary", [rb'"a;b=c"', rb'"a b"', rb'"a\"\\b"'])
def test_a_boundary_may_be_quoted(boundary: bytes) -> None:
    mark = boundary[1:-1].replace(rb"\"", b'"').replace(rb"\\", b"\\")
    head = b'content-disposition: form-data; name="file"; filename="a"'
    part = b"--%s\r\n%s\r\n\r\nbytes\r\n--%s--\r\n" % (mark, head, mark)
    assert asyncio.run(parse_form_files(b"multipart/form-data; boundary=" + boundary, part, "file", 1)) == [
        ("a", b"bytes")
    ]
