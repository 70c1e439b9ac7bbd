"""How many images a body holds is known about, before it is read: enough to refuse it cheaply under overload."""

import asyncio
import base64
import json

import httpx
import numpy as np
import pytest

from service.api.http.body import files_of, images_about, tensors_about
from tests.support.images import image_bytes

SHAPE = (8, 8, 1)


def form(count: int) -> tuple[bytes, bytes]:
    request = httpx.Request(
        "POST", "http://x", files=[("files", (f"{n}.png", image_bytes(seed=n))) for n in range(count)]
    )
    return request.headers["content-type"].encode(), request.read()


@pytest.mark.parametrize("count", [1, 2, 64])
def test_images_of_a_form_and_of_json_are_counted(count: int) -> None:
    assert images_about(*form(count)) == count
    images = [{"id": str(n), "data": base64.b64encode(image_bytes(seed=n)).decode()} for n in range(count)]
    assert images_about(b"application/json", json.dumps({"images": images}).encode()) == count


@pytest.mark.parametrize("count", [1, 2, 64])
def test_tensors_in_json_are_never_overestimated(count: int) -> None:
    pixels = np.full((count, *SHAPE), 255).tolist()
    nested = json.dumps({"instances": pixels}).encode()
    flat = {"name": "image", "shape": [count, *SHAPE], "datatype": "UINT8", "data": np.zeros(count * 64, int).tolist()}
    for body in (nested, json.dumps({"inputs": [flat]}, separators=(",", ":")).encode()):
        assert max(1, int(0.85 * count)) <= tensors_about(body, SHAPE) <= count


def test_a_raw_tensor_and_a_small_body_count_as_one() -> None:
    assert tensors_about(bytes(64 * 64), SHAPE) == 1
    assert tensors_about(b'{"instances": [' + b"1," * 20, SHAPE) == 1


@pytest.mark.parametrize("codec", ["", "undefined", "unicode_escape", "punycode", "utf-7"])
@pytest.mark.parametrize("name", ["sieben.png", "é.png", r"\ud800", "+2AA-"])
def test_names_in_a_form_are_utf8_whatever_it_claims(codec: str, name: str) -> None:
    part = f'--x\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\nbytes\r\n--x--\r\n'
    kind = b"multipart/form-data; boundary=x; charset=" + codec.encode()
    assert asyncio.run(files_of(kind, part.encode(), "file", 1)) == [(name, b"bytes")]


@pytest.mark.parametrize("boundary", [rb'"a;b=c"', rb'"a b"', rb'"a\"\\b"'])
def test_a_boundary_may_be_quoted(boundary: bytes) -> None:
    mark = boundary[1:-1].replace(rb"\"", b'"').replace(rb"\\", b"\\")
    head = b'content-disposition: form-data; name="file"; filename="a"'
    part = b"--%s\r\n%s\r\n\r\nbytes\r\n--%s--\r\n" % (mark, head, mark)
    assert asyncio.run(files_of(b"multipart/form-data; boundary=" + boundary, part, "file", 1)) == [("a", b"bytes")]
