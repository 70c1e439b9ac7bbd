"""Parses requests of TensorFlow Serving's REST API, which is also KServe V1.

Source: tensorflow.org/tfx/serving/api_rest (row and column format, base64 values). Knows the model's input, and is
independent of HTTP.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from service.api.http.json_arrays import (
    JsonDocument,
    abbreviate,
    check_image_count,
    check_member_count,
    decode_base64_image,
    flat_pixels,
    has_shape,
    is_array,
    parse_object,
)
from service.api.http.large_json import LargeArray
from service.errors import BadTensor
from service.model_store.manifest import IMAGE, Input

ROWS, COLUMN, SIGNATURE, PARAMETERS = "instances", "inputs", "signature_name", "parameters"
DEFAULT_SIGNATURE = "serving_default"
BASE64 = "b64"


@dataclass(slots=True)
class PredictRequest:
    """One request with either `tensor`, uint8 (n, h, w, c), or n encoded `images`.

    `by_row` is True for `instances` (one value per image), and False for `inputs` (all images as one value). A `top_k`
    of 0 requests all probabilities.
    """

    by_row: bool
    top_k: int
    tensor: NDArray[np.uint8] | None = None
    images: list[bytes] | None = None

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.images or () if self.tensor is None else self.tensor)


def parse(body: bytes, model_input: Input, max_images: int) -> PredictRequest:
    """Parses a request for a model with this input. Ignores unknown fields, like TensorFlow Serving.

    Raises BadTensor, which names the field, or TooManyImages.
    """
    document = parse_object(body)
    root = document.root
    if (ROWS in root) == (COLUMN in root):
        raise BadTensor(f"The request must have either `{ROWS}` or `{COLUMN}`.")
    _check_signature(root.get(SIGNATURE))
    request = PredictRequest(by_row=ROWS in root, top_k=_top_k(root.get(PARAMETERS)))
    values = document.value(root[ROWS] if request.by_row else _unwrap(root[COLUMN]))
    if isinstance(values, LargeArray):
        request.tensor = _parse_all_pixels(values, model_input, max_images)
        return request
    values = [document.value(_unwrap(value)) for value in _image_list(values, max_images)]
    if isinstance(values[0], simdjson.Object):
        request.images = [_decode_image(value, i, document) for i, value in enumerate(values)]
    else:
        request.tensor = np.stack([_parse_pixels(value, i, model_input) for i, value in enumerate(values)])
    return request


def _image_list(values: Any, max_images: int) -> Any:
    if not isinstance(values, simdjson.Array) or not len(values):
        raise BadTensor(f"`{ROWS}` or `{COLUMN}` must be a list of at least one image.")
    check_image_count(len(values), max_images)
    return values


def _unwrap(value: Any) -> Any:
    """Returns the value of a named input, {"image": value}, or a value without a name unchanged."""
    if not isinstance(value, simdjson.Object):
        return value
    check_member_count(value)
    if BASE64 in value:
        return value
    for name in value:
        if name != IMAGE:
            raise BadTensor(f"There is no input '{abbreviate(name)}'; the model takes '{IMAGE}'.")
    return value.get(IMAGE)


def _decode_image(value: Any, index: int, document: JsonDocument) -> bytes:
    if not isinstance(value, simdjson.Object):
        raise BadTensor(
            f"Image {index} is not an image in base64, but other images are; a request cannot mix the two forms."
        )
    if len(value) != 1 or BASE64 not in value:
        raise BadTensor(f'Image {index} must be a nested list of pixels, or {{"{BASE64}": "<image in base64>"}}.')
    return decode_base64_image(document.value(value[BASE64]), f"Image {index}")


def _parse_all_pixels(values: LargeArray, model_input: Input, max_images: int) -> NDArray[np.uint8]:
    """Returns the images of a large list of nested lists of pixels, uint8 (n, h, w, c)."""
    flat = flat_pixels(values, "The list of images")
    count, rest = divmod(flat.size, math.prod(model_input.shape))
    check_image_count(count, max_images)
    if rest or not has_shape(values, (count, *model_input.shape)):
        raise BadTensor(
            f"The images have {flat.size} values; each must be nested in the shape {list(model_input.shape)}."
        )
    return flat.reshape(count, *model_input.shape)


def _parse_pixels(value: Any, index: int, model_input: Input) -> NDArray[np.uint8]:
    if not is_array(value):
        raise BadTensor(f'Image {index} must be a nested list of pixels, or all must be {{"{BASE64}": "<base64>"}}.')
    flat = flat_pixels(value, f"Image {index}")
    if flat.size != math.prod(model_input.shape) or not has_shape(value, model_input.shape):
        raise BadTensor(
            f"Image {index} has {flat.size} values; it must be nested in the shape {list(model_input.shape)}."
        )
    return flat.reshape(model_input.shape)


def _check_signature(name: object) -> None:
    if name not in (None, "", DEFAULT_SIGNATURE):
        raise BadTensor(f"Unknown signature '{abbreviate(name)}'; the only signature is '{DEFAULT_SIGNATURE}'.")


def _top_k(parameters: Any) -> int:
    if parameters is None:
        return 0
    if isinstance(parameters, simdjson.Object):
        check_member_count(parameters)
    if not isinstance(parameters, simdjson.Object) or any(name != "top_k" for name in parameters):
        raise BadTensor(f"`{PARAMETERS}` may contain only `top_k`.")
    k = parameters.get("top_k", 0)
    if type(k) is not int or k < 0:
        raise BadTensor(f"`top_k` is {abbreviate(k)}; it must be a whole number.")
    return k
