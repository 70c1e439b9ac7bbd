"""Parses requests of the Open Inference Protocol V2: JSON, the binary data extension, and raw requests.

Source: kserve/open-inference-protocol (inference over REST), with the binary data and classification extensions.
Knows the model's input, and is independent of HTTP.
"""

import math
import struct
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import simdjson
from numpy.typing import NDArray

from service.api.http.json_arrays import (
    JsonDocument,
    abbreviate,
    check_image_count,
    decode_base64_image,
    flat_pixels,
    has_shape,
    is_array,
    is_nested,
    parse_object,
    select_members,
)
from service.api.http.large_json import LargeArray
from service.errors import BadTensor, TooManyImages
from service.model_store.manifest import IMAGE, PROBABILITIES, Input

LENGTH = struct.Struct("<I")
IMAGES, PIXELS = "BYTES", "UINT8"
BINARY_DATA_SIZE, MAX_SEARCHED_BYTES = b'"binary_data_size"', 1 << 16
MAX_REQUEST_ID_LENGTH = 256
MAX_DIMENSIONS = 8
SHARED_MEMORY = "shared_memory_region"
DATA = f"`data` of input '{IMAGE}'"
REQUEST_FIELDS = frozenset({"id", "inputs", "outputs", "parameters"})
INPUT_FIELDS = frozenset({"name", "shape", "datatype", "data", "parameters"})
OUTPUT_FIELDS = frozenset({"name", "parameters"})
PARAMETERS = frozenset(
    {"timeout", "priority", "binary_data_output", "binary_data_size", "binary_data", "classification", SHARED_MEMORY}
)

Members = dict[str, Any]


class RequestedOutput(NamedTuple):
    """The requested output: all probabilities, or the names of the `top_k` most probable classes. `binary` requests raw
    bytes."""

    binary: bool = False
    top_k: int = 0


@dataclass(slots=True)
class InferRequest:
    """One request with either `tensor`, uint8 (n, h, w, c), or n encoded `images`."""

    tensor: NDArray[np.uint8] | None = None
    images: list[bytes] | None = None
    output: RequestedOutput = field(default_factory=RequestedOutput)
    id: str | None = None
    timeout_s: float | None = None
    background: bool = False

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.images or () if self.tensor is None else self.tensor)


class _BinaryData:
    """The raw tensors after the JSON. Each is read once, in order."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def read(self, size: object) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._data):
            raise BadTensor(
                f"binary_data_size is {abbreviate(size)}, but {len(self._data)} bytes are left in the body."
            )
        tensor, self._data = self._data[:size], self._data[size:]
        return tensor

    def check_empty(self) -> None:
        if len(self._data):
            raise BadTensor(f"{len(self._data)} bytes are left in the body after the last tensor.")


def parse(body: bytes, json_length: int | None, model_input: Input, max_images: int) -> InferRequest:
    """Parses a request for a model with this input. `json_length` is the value of Inference-Header-Content-Length.

    Raises BadTensor, which names the field, or TooManyImages.
    """
    if json_length == 0:
        return _parse_raw_request(body, model_input, max_images)
    split = len(body) if json_length is None else json_length
    if split > len(body):
        raise BadTensor(f"Inference-Header-Content-Length is {split}; the body has {len(body)} bytes.")
    binary_data = _BinaryData(memoryview(body)[split:])
    try:
        document = parse_object(body[:split])
    except (BadTensor, TooManyImages):
        if json_length is None:
            _check_length_is_needless(body)
        raise
    request = _parse_json_request(document, binary_data, model_input, max_images)
    binary_data.check_empty()
    return request


def _check_length_is_needless(body: bytes) -> None:
    """Raises BadTensor for a body that is not JSON, but could be valid with Inference-Header-Content-Length."""
    if body and body.lstrip()[:1] != b"{":
        hint = "Send JSON, or one raw tensor with `Inference-Header-Content-Length: 0`."
        raise BadTensor(
            "The request does not begin with a JSON object, and has no Inference-Header-Content-Length.", hint
        )
    if BINARY_DATA_SIZE in body[:MAX_SEARCHED_BYTES]:
        hint = "Send that header with the number of bytes of the JSON."
        raise BadTensor(
            "Binary data follows the JSON, but the header Inference-Header-Content-Length is missing.", hint
        )


def _parse_raw_request(body: bytes, model_input: Input, max_images: int) -> InferRequest:
    """Parses a body that is one raw tensor. The response will be raw, too."""
    size = math.prod(model_input.shape)
    if not body or len(body) % size:
        raise BadTensor(
            f"The raw body has {len(body)} bytes; it must consist of images of {size} bytes each, of shape "
            f"{list(model_input.shape)}."
        )
    check_image_count(len(body) // size, max_images)
    return InferRequest(
        np.frombuffer(body, np.uint8).reshape(-1, *model_input.shape), output=RequestedOutput(binary=True)
    )


def _parse_json_request(
    document: JsonDocument, binary_data: _BinaryData, model_input: Input, max_images: int
) -> InferRequest:
    root = select_members(document.root, REQUEST_FIELDS)
    parameters = _parameters(root, "the request")
    input_tensor = _select_input(root)
    if "data" in input_tensor:
        input_tensor["data"] = document.value(input_tensor["data"])
    shape = _parse_shape(input_tensor)
    check_image_count(shape[0], max_images)
    request = InferRequest(
        id=_parse_id(document.value(root.get("id"))),
        timeout_s=_parse_timeout_s(parameters.get("timeout")),
        background=_is_background(parameters.get("priority")),
    )
    if input_tensor.get("datatype") == IMAGES:
        request.images = _parse_images(input_tensor, shape, binary_data, document)
    else:
        request.tensor = _parse_tensor(input_tensor, shape, binary_data, model_input)
    request.output = _parse_output(root.get("outputs"), _flag(parameters, "binary_data_output", False))
    return request


def _select_input(root: Members) -> Members:
    inputs = root.get("inputs")
    if not isinstance(inputs, simdjson.Array) or len(inputs) != 1 or not isinstance(inputs[0], simdjson.Object):
        raise BadTensor("`inputs` must be a list of one tensor.")
    input_tensor = select_members(inputs[0], INPUT_FIELDS)
    if input_tensor.get("name") != IMAGE:
        raise BadTensor(f"There is no input '{abbreviate(input_tensor.get('name'))}'; the model takes '{IMAGE}'.")
    return input_tensor


def _parse_shape(input_tensor: Members) -> list[int]:
    shape = input_tensor.get("shape")
    dimensions = list(islice(shape, MAX_DIMENSIONS + 1)) if isinstance(shape, simdjson.Array) else []
    valid = [size for size in dimensions if type(size) is int and size >= 0]
    if not valid or len(valid) != len(dimensions) or len(dimensions) > MAX_DIMENSIONS:
        raise BadTensor(f"`shape` of input '{IMAGE}' must be a list of whole numbers.")
    return valid


def _parse_tensor(
    input_tensor: Members, shape: list[int], binary_data: _BinaryData, model_input: Input
) -> NDArray[np.uint8]:
    if input_tensor.get("datatype") != PIXELS:
        datatype = abbreviate(input_tensor.get("datatype"))
        raise BadTensor(f"Input '{IMAGE}' has datatype {datatype}; it must be {PIXELS} or {IMAGES}.")
    if tuple(shape[1:]) != model_input.shape or not shape[0]:
        expected = [-1, *model_input.shape]
        raise BadTensor(f"Input '{IMAGE}' has shape {shape}; it must be {expected} with at least one image.")
    size = _binary_size(input_tensor)
    data = _json_data(input_tensor) if size is None else None
    values = np.frombuffer(binary_data.read(size), np.uint8) if data is None else flat_pixels(data, DATA)
    if values.size != math.prod(shape):
        raise BadTensor(f"Input '{IMAGE}' has {values.size} values; its shape {shape} needs {math.prod(shape)}.")
    if data is not None and is_nested(data) and not has_shape(data, tuple(shape)):
        raise BadTensor(f"{DATA} is nested, but not in the shape {shape}; nest it in this shape, or send it flat.")
    return values.reshape(shape)


def _parse_images(
    input_tensor: Members, shape: list[int], binary_data: _BinaryData, document: JsonDocument
) -> list[bytes]:
    """Parses images of the shape [n]. Also accepts [n, 1], which some clients send for BYTES tensors."""
    count = shape[0]
    if not count or math.prod(shape) != count:
        raise BadTensor(
            f"Input '{IMAGE}' has datatype {IMAGES} and shape {shape}; the shape must be [-1], with at least one image."
        )
    size = _binary_size(input_tensor)
    return (
        _decode_json_images(_json_data(input_tensor), count, document)
        if size is None
        else _split_elements(binary_data.read(size), count)
    )


def _decode_json_images(data: Any, count: int, document: JsonDocument) -> list[bytes]:
    if isinstance(data, LargeArray):
        raise BadTensor(f"{DATA} contains numbers; images must be strings in base64.")
    if len(data) != count:
        raise BadTensor(f"Input '{IMAGE}' has {len(data)} images; its shape needs {count}.")
    unwrapped = (value[0] if isinstance(value, simdjson.Array) and len(value) == 1 else value for value in data)
    return [decode_base64_image(document.value(value), f"Element {i} of {DATA}") for i, value in enumerate(unwrapped)]


def _split_elements(data: memoryview, count: int) -> list[bytes]:
    """Splits the elements. Each is preceded by its length, 4 bytes little-endian."""
    elements: list[bytes] = []
    offset = 0
    while offset < len(data) and len(elements) < count:
        start = offset + LENGTH.size
        end = start + LENGTH.unpack_from(data, offset)[0] if start <= len(data) else len(data) + 1
        if end > len(data):
            raise BadTensor(f"Input '{IMAGE}' is {IMAGES}: element {len(elements)} is longer than the remaining data.")
        elements.append(bytes(data[start:end]))
        offset = end
    if len(elements) != count or offset != len(data):
        raise BadTensor(f"Input '{IMAGE}' is {IMAGES}: its binary data does not contain {count} elements.")
    return elements


def _json_data(input_tensor: Members) -> Any:
    data = input_tensor.get("data")
    if not is_array(data):
        raise BadTensor(f"Input '{IMAGE}' has neither a list `data` nor binary_data_size.")
    return data


def _binary_size(input_tensor: Members) -> object | None:
    return _parameters(input_tensor, f"input '{IMAGE}'").get("binary_data_size")


def _parse_output(outputs: Any, binary: bool) -> RequestedOutput:
    if outputs is None or (isinstance(outputs, simdjson.Array) and not len(outputs)):
        return RequestedOutput(binary)
    first = outputs[0] if isinstance(outputs, simdjson.Array) and len(outputs) == 1 else None
    output: Members = select_members(first, OUTPUT_FIELDS) if isinstance(first, simdjson.Object) else {}
    if output.get("name") != PROBABILITIES:
        raise BadTensor(f"`outputs` must contain exactly one output, '{PROBABILITIES}'.")
    parameters = _parameters(output, f"output '{PROBABILITIES}'")
    top_k = parameters.get("classification")
    top_k = 0 if top_k is None else top_k
    if type(top_k) is not int or top_k < 0:
        raise BadTensor(f"`classification` is {abbreviate(top_k)}; it must be a whole number.")
    return RequestedOutput(_flag(parameters, "binary_data", binary), top_k)


def _parameters(json_object: Members, name: str) -> Members:
    parameters = json_object.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, simdjson.Object):
        raise BadTensor(f"`parameters` of {name} must be an object.")
    selected = select_members(parameters, PARAMETERS)
    if SHARED_MEMORY in selected:
        raise BadTensor("Tensors in shared memory are not supported; send them in the request.")
    return selected


def _flag(parameters: Members, name: str, default: bool) -> bool:
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadTensor(f"`{name}` is {abbreviate(value)}; it must be true or false.")
    return value


def _parse_id(value: object) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= MAX_REQUEST_ID_LENGTH):
        return value
    raise BadTensor(f"`id` must be a string of at most {MAX_REQUEST_ID_LENGTH} characters.")


def _is_background(priority: object) -> bool:
    """Whether the priority is above 1, which means background work. The default is 0."""
    if priority is None:
        return False
    if type(priority) is not int or priority < 0:
        raise BadTensor(
            f"`priority` is {abbreviate(priority)}; it must be a whole number of at least 0. Requests with a priority "
            "above 1 run as background work."
        )
    return priority > 1


def _parse_timeout_s(microseconds: object) -> float | None:
    if microseconds is None:
        return None
    if type(microseconds) is not int or microseconds < 0:
        raise BadTensor(f"`timeout` is {abbreviate(microseconds)}; it must be a whole number of microseconds.")
    return microseconds / 1e6 or None  # 0 means the server's own timeout
