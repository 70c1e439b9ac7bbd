"""Test cases: the bytes of a request and the allowed responses. Independent of sockets."""

import base64
import json
import struct
from typing import NamedTuple

CONVOY_ERROR, TEXT_ERROR, ANY_ERROR = "own", "foreign", "any"
"""Formats of errors: Convoy's object, the text of V2 and V1, or either of them if the protocol is ambiguous."""

MODELS = ("small", "large")
"""Models of the test service: 8x8 gray, and 32x32 in color with scaling and cropping."""


class Case(NamedTuple):
    """A case of malformed input. With `may_be_silent`, a missing response is allowed, and the timeout is short."""

    kind: str
    request_bytes: bytes
    error_format: str = CONVOY_ERROR
    may_be_silent: bool = False

    @property
    def is_head(self) -> bool:
        return self.request_bytes.startswith(b"HEAD ")


def http_post(path: str, body: bytes, content_type: str = "", *more: str) -> bytes:
    """Encodes a POST request with a correct Content-Length."""
    lines = [f"POST {path} HTTP/1.1", "host: convoy", f"content-length: {len(body)}", *more]
    lines += [f"content-type: {content_type}"] * bool(content_type)
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + body


def body_image(kind: str, image: bytes, model: str = "large") -> Case:
    """Returns a case that sends the image as the body."""
    return Case(kind, http_post(f"/api/v1/models/{model}/classify", image, "image/*"))


def form_image(kind: str, image: bytes, model: str = "large") -> Case:
    """Returns a case that sends the image as a file in a form."""
    boundary = b"=====a boundary that no image has====="
    head = b"--" + boundary + b'\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    kind_of_form = f"multipart/form-data; boundary={boundary.decode()}"
    body = head + image + b"\r\n--" + boundary + b"--\r\n"
    return Case(kind, http_post(f"/api/v1/models/{model}/classify", body, kind_of_form))


def json_batch_image(kind: str, image: bytes, model: str = "large", times: int = 1) -> Case:
    """Returns a case that sends the image in base64, `times` times in one batch."""
    body = json.dumps({"images": [{"data": base64.b64encode(image).decode()}] * times}).encode()
    return Case(kind, http_post(f"/api/v1/models/{model}/classify/batch", body, "application/json"))


def v2_bytes_image(kind: str, image: bytes, model: str = "large", times: int = 1) -> Case:
    """Returns a case that sends the image as BYTES of V2's binary extension."""
    elements = (struct.pack("<I", len(image)) + image) * times
    size = {"binary_data_size": len(elements)}
    tensor_fields = {"name": "image", "datatype": "BYTES", "shape": [times], "parameters": size}
    text = json.dumps({"inputs": [tensor_fields]}).encode()
    return v2(kind, text + elements, len(text), model)


def v1_base64_image(kind: str, image: bytes, model: str = "large", times: int = 1) -> Case:
    body = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}] * times}).encode()
    return v1(kind, body, model)


def v2(kind: str, body: bytes, json_length: int | str | None = None, model: str = "small", *more: str) -> Case:
    length = [] if json_length is None else [f"inference-header-content-length: {json_length}"]
    return Case(kind, http_post(f"/v2/models/{model}/infer", body, "application/json", *length, *more), TEXT_ERROR)


def v1(kind: str, body: bytes, model: str = "small") -> Case:
    return Case(kind, http_post(f"/v1/models/{model}:predict", body, "application/json"), TEXT_ERROR)


IMAGE_REQUESTS = (body_image, body_image, form_image, json_batch_image, v2_bytes_image, v1_base64_image)
"""All ways to send an image, with weights: most images are sent as the body."""
