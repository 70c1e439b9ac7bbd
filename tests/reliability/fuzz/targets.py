"""The functions to fuzz, with checks that must hold for any bytes.

Independent of the fuzzer. A test also runs kept findings with these functions.
"""

import math
import struct
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from service.api.http import status_codes
from service.api.http.responses import json_bytes
from service.api.v1 import request_parser as v1_parser
from service.api.v1 import response_encoder as v1_encoder
from service.api.v2 import request_parser as v2_parser
from service.api.v2 import response_encoder
from service.errors import ConvoyError
from service.imaging.decode import decode
from service.model_store.manifest import Input
from tests.reliability.malformed_requests import valid_inputs

MAX_PIXELS = 250_000
MAX_IMAGES = 16
MAX_MESSAGE = 1000
INPUT = Input(height=valid_inputs.SHAPE[0], width=valid_inputs.SHAPE[1], channels=1)
CLASSES = 4
LENGTH = struct.Struct("<I")
WHOLE_BODY = 2**32 - 1
"""Value of the JSON length that means a request without Inference-Header-Content-Length."""

T = TypeVar("T")


def fuzz_decode(data: bytes) -> None:
    """Decodes an image. The result must be within the pixel limit and have the requested channels, or be a
    ConvoyError."""
    shapes = {channels: _call_or_error(lambda c=channels: decode(data, c, 255, MAX_PIXELS)) for channels in (1, 3)}
    for channels, pixels in shapes.items():
        if pixels is not None:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == channels
            assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    assert (shapes[1] is None) == (shapes[3] is None)


def fuzz_infer(data: bytes) -> None:
    """Parses a V2 request that follows four bytes with the JSON length. The result must fit the model or be a
    ConvoyError."""
    if len(data) < LENGTH.size:
        return
    length = LENGTH.unpack_from(data)[0]
    body = data[LENGTH.size :]
    request = _call_or_error(lambda: v2_parser.parse(body, None if length == WHOLE_BODY else length, INPUT, MAX_IMAGES))
    if request is not None:
        count = _check_images(request.tensor, request.images)
        assert request.id is None or len(request.id) <= v2_parser.MAX_REQUEST_ID_LENGTH
        assert request.timeout_s is None or 0 < request.timeout_s < math.inf
        rows = np.zeros((count, CLASSES), np.float32)
        response_encoder.encode("model", "1", request, rows, [f"class {n}" for n in range(CLASSES)])


def fuzz_predict(data: bytes) -> None:
    """Parses a V1 request. The result must fit the model or be a ConvoyError."""
    request = _call_or_error(lambda: v1_parser.parse(data, INPUT, MAX_IMAGES))
    if request is not None:
        count = _check_images(request.tensor, request.images)
        rows = np.zeros((count, CLASSES), np.float32)
        v1_encoder.encode(request, rows, [f"class {n}" for n in range(CLASSES)])


TARGETS: dict[str, Callable[[bytes], None]] = {"decode": fuzz_decode, "infer": fuzz_infer, "predict": fuzz_predict}


def corpus(target: str) -> list[bytes]:
    """Returns valid inputs from which the fuzzer starts."""
    if target == "decode":
        return list(valid_inputs.images().values())
    if target == "predict":
        return valid_inputs.v1_json()
    raw = np.zeros((2, *valid_inputs.SHAPE), np.uint8).tobytes()
    bodies = [(body, WHOLE_BODY) for body in valid_inputs.v2_json()] + valid_inputs.v2_binary() + [(raw, 0)]
    return [LENGTH.pack(length) + body for body, length in bodies]


def _check_images(tensor: np.ndarray | None, images: list[bytes] | None) -> int:
    assert (tensor is None) != (images is None)
    if images is not None:
        assert all(isinstance(image, bytes) for image in images)
    else:
        assert tensor is not None
        assert tensor.dtype == np.uint8
        assert tensor.shape[1:] == INPUT.shape
    count = len(tensor if tensor is not None else images or [])
    assert 0 < count <= MAX_IMAGES
    return count


def _call_or_error(call: Callable[[], T]) -> T | None:
    """Returns the result, or None for a ConvoyError that a client can cause. Its message must be valid in a
    response."""
    try:
        return call()
    except ConvoyError as error:
        convoy_error = error
    assert 400 <= status_codes.STATUS[type(convoy_error)] < 500
    assert len(convoy_error.message) <= MAX_MESSAGE
    json_bytes({"error": status_codes.error_json(convoy_error)})
    return None
