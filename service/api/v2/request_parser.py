"""Requests of the Open Inference Protocol V2, from bytes: JSON, the binary extension, and raw ones.

Source: kserve/open-inference-protocol (inference over REST), with the binary data and classification extensions.
Knows the model's input, and no HTTP.
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
    abbreviate,
    check_image_count,
    decode_base64,
    flat_pixels,
    has_shape,
    parse_object,
    select_members,
)
from service.errors import BadTensor
from service.model_store.manifest import IMAGE, PROBABILITIES, Input

LENGTH = struct.Struct("<I")
IMAGES, PIXELS = "BYTES", "UINT8"
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


class WantedOutput(NamedTuple):
    """How the probabilities are to be answered: as they are, or the `top_k` best classes by name."""

    binary: bool = False
    top_k: int = 0


@dataclass(slots=True)
class InferRequest:
    """One request: either `tensor`, uint8 (n, h, w, c), or `images`, n encoded ones."""

    tensor: NDArray[np.uint8] | None = None
    images: list[bytes] | None = None
    output: WantedOutput = field(default_factory=WantedOutput)
    id: str | None = None
    timeout_s: float | None = None
    background: bool = False


class _Tail:
    """The raw tensors behind the JSON; each is taken once, in order."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: object) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._data):
            raise BadTensor(
                f"binary_data_size is {abbreviate(size)}, but {len(self._data)} bytes are left in the body."
            )
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def check_empty(self) -> None:
        if len(self._data):
            raise BadTensor(f"{len(self._data)} bytes are left in the body after the last tensor.")


def parse(body: bytes, json_length: int | None, to: Input, max_images: int) -> InferRequest:
    """A request for a model that takes `to`; `json_length` is the value of Inference-Header-Content-Length.

    Raises BadTensor, naming the field, or TooManyImages.
    """
    if json_length == 0:
        return _raw_request(body, to, max_images)
    split = len(body) if json_length is None else json_length
    if split > len(body):
        raise BadTensor(f"Inference-Header-Content-Length is {split}; the body has {len(body)} bytes.")
    tail = _Tail(memoryview(body)[split:])
    request = _request(parse_object(body[:split]), tail, to, max_images)
    tail.check_empty()
    return request


def _raw_request(body: bytes, to: Input, max_images: int) -> InferRequest:
    """The body is one tensor, and so is the answer."""
    size = math.prod(to.shape)
    if not body or len(body) % size:
        raise BadTensor(f"A raw request holds {len(body)} bytes; images of {list(to.shape)} have {size} each.")
    check_image_count(len(body) // size, max_images)
    return InferRequest(np.frombuffer(body, np.uint8).reshape(-1, *to.shape), output=WantedOutput(binary=True))


def _request(text: Any, tail: _Tail, to: Input, max_images: int) -> InferRequest:
    document = select_members(text, REQUEST_FIELDS)
    parameters = _parameters(document, "the request")
    given = _one_input(document)
    shape = _shape(given)
    check_image_count(shape[0], max_images)
    request = InferRequest(
        id=_id(document.get("id")),
        timeout_s=_timeout_s(parameters.get("timeout")),
        background=_background(parameters.get("priority")),
    )
    if given.get("datatype") == IMAGES:
        request.images = _images(given, shape, tail)
    else:
        request.tensor = _tensor(given, shape, tail, to)
    request.output = _output(document.get("outputs"), _flag(parameters, "binary_data_output", False))
    return request


def _one_input(document: Members) -> Members:
    inputs = document.get("inputs")
    if not isinstance(inputs, simdjson.Array) or len(inputs) != 1 or not isinstance(inputs[0], simdjson.Object):
        raise BadTensor("`inputs` must be a list of one tensor.")
    given = select_members(inputs[0], INPUT_FIELDS)
    if given.get("name") != IMAGE:
        raise BadTensor(f"There is no input '{abbreviate(given.get('name'))}'; the model takes '{IMAGE}'.")
    return given


def _shape(given: Members) -> list[int]:
    shape = given.get("shape")
    sides = list(islice(shape, MAX_DIMENSIONS + 1)) if isinstance(shape, simdjson.Array) else []
    whole = [side for side in sides if type(side) is int and side >= 0]
    if not whole or len(whole) != len(sides) or len(sides) > MAX_DIMENSIONS:
        raise BadTensor(f"`shape` of input '{IMAGE}' must be a list of whole numbers.")
    return whole


def _tensor(given: Members, shape: list[int], tail: _Tail, to: Input) -> NDArray[np.uint8]:
    if given.get("datatype") != PIXELS:
        found = abbreviate(given.get("datatype"))
        raise BadTensor(f"Input '{IMAGE}' has datatype {found}; it must be {PIXELS} or {IMAGES}.")
    if tuple(shape[1:]) != to.shape or not shape[0]:
        raise BadTensor(f"Input '{IMAGE}' has shape {shape}; it must be {[-1, *to.shape]} with at least one image.")
    size = _binary_size(given)
    data = _data(given) if size is None else None
    values = np.frombuffer(tail.take(size), np.uint8) if data is None else flat_pixels(data, DATA)
    if values.size != math.prod(shape):
        raise BadTensor(f"Input '{IMAGE}' has {values.size} values; its shape {shape} needs {math.prod(shape)}.")
    if data is not None and isinstance(data[0], simdjson.Array) and not has_shape(data, tuple(shape)):
        raise BadTensor(f"{DATA} is nested, but not in the shape {shape}; nest it so, or send it flat.")
    return values.reshape(shape)


def _images(given: Members, shape: list[int], tail: _Tail) -> list[bytes]:
    """The shape is [n], or [n, 1] as those send it who batch texts."""
    count = shape[0]
    if not count or math.prod(shape) != count:
        raise BadTensor(f"Input '{IMAGE}' is {IMAGES} of shape {shape}; it must be [-1], with at least one image.")
    size = _binary_size(given)
    return _json_images(_data(given), count) if size is None else _split(tail.take(size), count)


def _json_images(data: Any, count: int) -> list[bytes]:
    if len(data) != count:
        raise BadTensor(f"Input '{IMAGE}' has {len(data)} images; its shape needs {count}.")
    alone = (value[0] if isinstance(value, simdjson.Array) and len(value) == 1 else value for value in data)
    return [decode_base64(value, f"Element {i} of {DATA}") for i, value in enumerate(alone)]


def _split(data: memoryview, count: int) -> list[bytes]:
    """Elements that each stand behind their length, 4 bytes little-endian."""
    elements: list[bytes] = []
    at = 0
    while at < len(data) and len(elements) < count:
        start = at + LENGTH.size
        end = start + LENGTH.unpack_from(data, at)[0] if start <= len(data) else len(data) + 1
        if end > len(data):
            raise BadTensor(f"Input '{IMAGE}' is {IMAGES}: element {len(elements)} is longer than the data.")
        elements.append(bytes(data[start:end]))
        at = end
    if len(elements) != count or at != len(data):
        raise BadTensor(f"Input '{IMAGE}' is {IMAGES}: its binary data does not hold {count} elements.")
    return elements


def _data(given: Members) -> Any:
    data = given.get("data")
    if not isinstance(data, simdjson.Array):
        raise BadTensor(f"Input '{IMAGE}' has neither a list `data` nor binary_data_size.")
    return data


def _binary_size(given: Members) -> object | None:
    return _parameters(given, f"input '{IMAGE}'").get("binary_data_size")


def _output(wanted: Any, binary: bool) -> WantedOutput:
    if wanted is None or (isinstance(wanted, simdjson.Array) and not len(wanted)):
        return WantedOutput(binary)
    only = wanted[0] if isinstance(wanted, simdjson.Array) and len(wanted) == 1 else None
    one: Members = select_members(only, OUTPUT_FIELDS) if isinstance(only, simdjson.Object) else {}
    if one.get("name") != PROBABILITIES:
        raise BadTensor(f"Only the output '{PROBABILITIES}' can be requested, once.")
    parameters = _parameters(one, f"output '{PROBABILITIES}'")
    top_k = parameters.get("classification")
    top_k = 0 if top_k is None else top_k
    if type(top_k) is not int or top_k < 0:
        raise BadTensor(f"`classification` is {abbreviate(top_k)}; it must be a whole number.")
    return WantedOutput(_flag(parameters, "binary_data", binary), top_k)


def _parameters(holder: Members, name: str) -> Members:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, simdjson.Object):
        raise BadTensor(f"`parameters` of {name} must be an object.")
    known = select_members(parameters, PARAMETERS)
    if SHARED_MEMORY in known:
        raise BadTensor("Tensors cannot be exchanged through shared memory here; send them in the request.")
    return known


def _flag(parameters: Members, name: str, otherwise: bool) -> bool:
    value = parameters.get(name)
    if value is None:
        return otherwise
    if not isinstance(value, bool):
        raise BadTensor(f"`{name}` is {abbreviate(value)}; it must be true or false.")
    return value


def _id(value: object) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= MAX_REQUEST_ID_LENGTH):
        return value
    raise BadTensor(f"`id` must be a text of at most {MAX_REQUEST_ID_LENGTH} characters.")


def _background(priority: object) -> bool:
    """1 is the highest priority, 0 the default one, which is the same here; all others may wait for it."""
    if priority is None:
        return False
    if type(priority) is not int or priority < 0:
        raise BadTensor(f"`priority` is {abbreviate(priority)}; it must be a whole number.")
    return priority > 1


def _timeout_s(microseconds: object) -> float | None:
    if microseconds is None:
        return None
    if type(microseconds) is not int or microseconds < 0:
        raise BadTensor(f"`timeout` is {abbreviate(microseconds)}; it must be a whole number of microseconds.")
    return microseconds / 1e6 or None  # 0 means: the server's own
