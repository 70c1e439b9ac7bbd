"""One thing that a stranger may send, as bytes on the wire, and what may be answered. Knows no socket."""

import base64
import json
import struct
from typing import NamedTuple

OWN, FOREIGN, ANY = "own", "foreign", "any"
"""The shapes of errors: Convoy's object, the text of V2 and V1, or either, where it is not clear what was asked."""

MODELS = ("small", "large")
"""8 x 8 grey, and 32 x 32 in colour, which scales and crops."""


class Case(NamedTuple):
    """`wire` is sent as it is. `silent` allows for no answer at all, after which one is not waited for long."""

    kind: str
    wire: bytes
    shape: str = OWN
    silent: bool = False

    @property
    def headless(self) -> bool:
        return self.wire.startswith(b"HEAD ")


def post(path: str, body: bytes, content_type: str = "", *more: str) -> bytes:
    """A request with a right Content-Length."""
    lines = [f"POST {path} HTTP/1.1", "host: convoy", f"content-length: {len(body)}", *more]
    lines += [f"content-type: {content_type}"] * bool(content_type)
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + body


def raw(kind: str, image: bytes, model: str = "large") -> Case:
    """As the body."""
    return Case(kind, post(f"/api/v1/models/{model}/classify", image, "image/*"))


def form(kind: str, image: bytes, model: str = "large") -> Case:
    """As a file of a form."""
    mark = b"=====a boundary that no image has====="
    head = b"--" + mark + b'\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    kind_of_form = f"multipart/form-data; boundary={mark.decode()}"
    body = head + image + b"\r\n--" + mark + b"--\r\n"
    return Case(kind, post(f"/api/v1/models/{model}/classify", body, kind_of_form))


def batch(kind: str, image: bytes, model: str = "large", times: int = 1) -> Case:
    """In base64, among others."""
    body = json.dumps({"images": [{"data": base64.b64encode(image).decode()}] * times}).encode()
    return Case(kind, post(f"/api/v1/models/{model}/classify/batch", body, "application/json"))


def v2_bytes(kind: str, image: bytes, model: str = "large", times: int = 1) -> Case:
    """As BYTES of V2's binary extension."""
    elements = (struct.pack("<I", len(image)) + image) * times
    size = {"binary_data_size": len(elements)}
    given = {"name": "image", "datatype": "BYTES", "shape": [times], "parameters": size}
    text = json.dumps({"inputs": [given]}).encode()
    return v2(kind, text + elements, len(text), model)


def v1_base64(kind: str, image: bytes, model: str = "large", times: int = 1) -> Case:
    body = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}] * times}).encode()
    return v1(kind, body, model)


def v2(kind: str, body: bytes, json_length: int | str | None = None, model: str = "small", *more: str) -> Case:
    length = [] if json_length is None else [f"inference-header-content-length: {json_length}"]
    return Case(kind, post(f"/v2/models/{model}/infer", body, "application/json", *length, *more), FOREIGN)


def v1(kind: str, body: bytes, model: str = "small") -> Case:
    return Case(kind, post(f"/v1/models/{model}:predict", body, "application/json"), FOREIGN)


WAYS_IN = (raw, raw, form, batch, v2_bytes, v1_base64)
"""Every way that an image can come in; most come as the body."""
