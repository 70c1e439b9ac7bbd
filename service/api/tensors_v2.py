"""Tensors of the Open Inference Protocol V2: requests from bytes, responses to bytes, JSON and binary.

Source: kserve/open-inference-protocol (inference over REST), with the binary data and classification extensions.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from service.classifier import Row, best
from service.errors import BadTensor
from service.manifest import IMAGE, PROBABILITIES, Input

LENGTH = struct.Struct("<I")
MAX_REQUEST_ID_LENGTH = 256
MAX_SIDE = 2**31
PICTURES, PIXELS = "BYTES", "UINT8"


class WantedOutput(NamedTuple):
    """How the probabilities are to be answered: as they are, or the `top_k` best classes by name."""

    binary: bool = False
    top_k: int = 0


@dataclass(slots=True)
class InferRequest:
    """One request: either `tensor`, uint8 (n, h, w, c), or `pictures`, n encoded ones."""

    tensor: NDArray[np.uint8] | None = None
    pictures: list[bytes] | None = None
    outputs: list[WantedOutput] = field(default_factory=lambda: [WantedOutput()])
    id: str | None = None
    timeout_s: float | None = None


class _Tail:
    """The raw tensors behind the JSON; each is taken once, in order."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)

    def take(self, size: object) -> memoryview:
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(self._data):
            raise BadTensor(f"binary_data_size is {size}, but {len(self._data)} bytes are left in the body.")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def check_empty(self) -> None:
        if len(self._data):
            raise BadTensor(f"{len(self._data)} bytes are left in the body after the last tensor.")


class RequestParser:
    """Keeps one simdjson parser, whose memory every request reuses. Not for use by several threads."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser()

    def parse(self, body: bytes, json_length: int | None, to: Input) -> InferRequest:
        """A request for a model that takes `to`; `json_length` is the value of Inference-Header-Content-Length.

        Raises BadTensor, naming the field.
        """
        if json_length == 0:
            return _raw_request(body, to)
        split = len(body) if json_length is None else json_length
        if split > len(body):
            raise BadTensor(f"Inference-Header-Content-Length is {split}; the body has {len(body)} bytes.")
        tail = _Tail(memoryview(body)[split:])
        request = _request(self._document(body[:split]), tail, to)
        tail.check_empty()
        return request

    def _document(self, text: bytes) -> Any:
        try:
            document = self._parser.parse(text)
        except RuntimeError:  # a document of the request before is still alive in some traceback
            self._parser = simdjson.Parser()
            document = self._parser.parse(text)
        except ValueError as error:
            raise BadTensor(f"The request is not JSON: {error}.") from None
        if not isinstance(document, simdjson.Object):
            raise BadTensor("The request is not a JSON object.")
        return document


def _raw_request(body: bytes, to: Input) -> InferRequest:
    """The body is one tensor, and so is the answer."""
    size = int(np.prod(to.shape))
    if not body or len(body) % size:
        raise BadTensor(f"A raw request holds {len(body)} bytes; images of {to.shape} have {size} each.")
    return InferRequest(np.frombuffer(body, np.uint8).reshape(-1, *to.shape), outputs=[WantedOutput(binary=True)])


def _request(document: Any, tail: _Tail, to: Input) -> InferRequest:
    parameters = _object(document.get("parameters"), "parameters")
    given = _one_input(document)
    request = InferRequest(id=_id(document.get("id")), timeout_s=_timeout_s(parameters.get("timeout")))
    if given.get("datatype") == PICTURES:
        request.pictures = _pictures(given, tail)
    else:
        request.tensor = _tensor(given, tail, to)
    request.outputs = _outputs(document.get("outputs"), bool(parameters.get("binary_data_output")))
    return request


def _one_input(document: Any) -> Any:
    inputs = document.get("inputs")
    if not isinstance(inputs, simdjson.Array) or len(inputs) != 1 or not isinstance(inputs[0], simdjson.Object):
        raise BadTensor("`inputs` must be a list of one tensor.")
    if inputs[0].get("name") != IMAGE:
        raise BadTensor(f"There is no input '{inputs[0].get('name')}'; the model takes '{IMAGE}'.")
    return inputs[0]


def _shape(given: Any) -> list[int]:
    shape: Any = given.get("shape")
    sides: list[Any] = shape.as_list() if isinstance(shape, simdjson.Array) else [None]
    if not all(type(side) is int and 0 <= side <= MAX_SIDE for side in sides):
        raise BadTensor("`shape` must be a list of whole numbers.")
    return sides


def _tensor(given: Any, tail: _Tail, to: Input) -> NDArray[np.uint8]:
    if given.get("datatype") != PIXELS:
        raise BadTensor(f"Input '{IMAGE}' has datatype {given.get('datatype')}; it must be {PIXELS} or {PICTURES}.")
    shape = _shape(given)
    if len(shape) != 4 or tuple(shape[1:]) != to.shape or not shape[0]:
        raise BadTensor(f"Input '{IMAGE}' has shape {shape}; it must be {[-1, *to.shape]} with at least one image.")
    size = _binary_size(given)
    values = _json_pixels(given) if size is None else np.frombuffer(tail.take(size), np.uint8)
    if values.size != np.prod(shape):
        raise BadTensor(f"Input '{IMAGE}' has {values.size} values; its shape {shape} needs {np.prod(shape)}.")
    return values.reshape(shape)


def _json_pixels(given: Any) -> NDArray[np.uint8]:
    data = given.get("data")
    if not isinstance(data, simdjson.Array):
        raise BadTensor(f"Input '{IMAGE}' has neither `data` nor binary_data_size.")
    try:
        # Straight into a buffer: no Python object a number. Nested lists come out flat, row by row.
        values = np.frombuffer(data.as_buffer(of_type="u"), np.uint64)
    except (ValueError, TypeError, RuntimeError):
        values = np.full(1, 256, np.uint64)
    if values.size and values.max() > 255:
        raise BadTensor(f"Input '{IMAGE}' is {PIXELS}: `data` may hold whole numbers from 0 to 255 only.")
    return values.astype(np.uint8)


def _pictures(given: Any, tail: _Tail) -> list[bytes]:
    shape = _shape(given)
    size = _binary_size(given)
    pictures = _json_pictures(given) if size is None else _split(tail.take(size))
    if not pictures or int(np.prod(shape)) != len(pictures):
        raise BadTensor(f"Input '{IMAGE}' has {len(pictures)} elements; its shape is {shape}.")
    return pictures


def _json_pictures(given: Any) -> list[bytes]:
    data = given.get("data")
    try:
        return [base64.b64decode(element, validate=True) for element in data.as_list()]
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise BadTensor(f"Input '{IMAGE}' is {PICTURES}: `data` must be a list of pictures in base64.") from None


def _split(data: memoryview) -> list[bytes]:
    """Elements that each stand behind their length, 4 bytes little-endian."""
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + LENGTH.size
        end = start + LENGTH.unpack_from(data, at)[0] if start <= len(data) else len(data) + 1
        if end > len(data):
            raise BadTensor(f"Input '{IMAGE}' is {PICTURES}: element {len(elements)} is longer than the data.")
        elements.append(bytes(data[start:end]))
        at = end
    return elements


def _binary_size(given: Any) -> object | None:
    return _object(given.get("parameters"), "parameters of the input").get("binary_data_size")  # type: ignore[no-any-return]


def _outputs(wanted: Any, binary: bool) -> list[WantedOutput]:
    if wanted is None or (isinstance(wanted, simdjson.Array) and not len(wanted)):
        return [WantedOutput(binary)]
    if not isinstance(wanted, simdjson.Array):
        raise BadTensor("`outputs` must be a list.")
    return [_output(output, binary) for output in wanted]


def _output(wanted: Any, binary: bool) -> WantedOutput:
    if not isinstance(wanted, simdjson.Object) or wanted.get("name") != PROBABILITIES:
        raise BadTensor(f"Only the output '{PROBABILITIES}' can be requested.")
    parameters = _object(wanted.get("parameters"), "parameters of the output")
    top_k = parameters.get("classification", 0)
    if type(top_k) is not int or top_k < 0:
        raise BadTensor(f"`classification` is {top_k}; it must be a whole number.")
    return WantedOutput(bool(parameters.get("binary_data", binary)), top_k)


def _object(value: Any, name: str) -> Any:
    if value is None:
        return {}
    if not isinstance(value, simdjson.Object):
        raise BadTensor(f"`{name}` must be an object.")
    return value


def _id(value: object) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= MAX_REQUEST_ID_LENGTH):
        return value
    raise BadTensor(f"`id` must be a text of at most {MAX_REQUEST_ID_LENGTH} characters.")


def _timeout_s(microseconds: object) -> float | None:
    if microseconds is None:
        return None
    if type(microseconds) is not int or microseconds < 0:
        raise BadTensor(f"`timeout` is {microseconds}; it must be a whole number of microseconds.")
    return microseconds / 1e6 or None  # 0 means: the server's own


class Encoded(NamedTuple):
    """A response body; `json_length` is its header's length where raw tensors follow, else None."""

    body: bytes
    json_length: int | None


def encode(model: str, version: str, request: InferRequest, rows: Row, labels: Sequence[str]) -> Encoded:
    """The response with `rows`, float32 (n, classes), in the forms that the request asked for."""
    outputs, tail = [], []
    for wanted in request.outputs:
        output, raw = _named(rows, labels, wanted) if wanted.top_k else _numbers(rows, wanted)
        outputs.append(output)
        tail.append(raw)
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        head["id"] = request.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(wanted.binary for wanted in request.outputs):
        return Encoded(text, None)
    return Encoded(b"".join([text, *tail]), len(text))


def _numbers(rows: Row, wanted: WantedOutput) -> tuple[dict[str, Any], bytes]:
    output: dict[str, Any] = {"name": PROBABILITIES, "datatype": "FP32", "shape": list(rows.shape)}
    if not wanted.binary:
        return output | {"data": np.ascontiguousarray(rows).reshape(-1)}, b""
    raw = rows.astype("<f4", copy=False).tobytes()
    return output | {"parameters": {"binary_data_size": len(raw)}}, raw


def _named(rows: Row, labels: Sequence[str], wanted: WantedOutput) -> tuple[dict[str, Any], bytes]:
    """Each element is "probability:index:label"."""
    texts = [f"{p.probability:f}:{p.index}:{p.label}" for row in rows for p in best(row, labels, wanted.top_k)]
    output = {"name": PROBABILITIES, "datatype": PICTURES, "shape": [len(rows), len(texts) // len(rows)]}
    if not wanted.binary:
        return output | {"data": texts}, b""
    raw = b"".join(LENGTH.pack(len(text)) + text for text in map(str.encode, texts))
    return output | {"parameters": {"binary_data_size": len(raw)}}, raw
