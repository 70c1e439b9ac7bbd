"""Encodes responses of the Open Inference Protocol V2: numbers or class names, in the JSON or as raw bytes after the
JSON."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.http.response_encoder import (
    BINARY_VALUE_BYTES,
    JSON_VALUE_BYTES,
    SLICE_VALUES,
    join,
    json_items,
    predictions_bytes,
    row_slices,
)
from service.api.http.responses import Body
from service.api.v2.request_parser import IMAGES, LENGTH, InferRequest
from service.classification.top_k import Probabilities, top_k
from service.loaded_models.loaded_version import LoadedVersion
from service.model_store.manifest import PROBABILITIES

NO_DATA = b'"data":[]'
"""Occurs only once in a document, because quotation marks inside strings are escaped."""


class EncodedResponse(NamedTuple):
    """A response body. `json_length` is the length of its JSON if a raw tensor follows, otherwise None."""

    body: Body
    json_length: int | None


def max_response_bytes(request: InferRequest, loaded: LoadedVersion) -> int:
    """Returns the maximum size of the data in the response, which is known before the model runs."""
    if request.output.top_k:
        return predictions_bytes(loaded, request.count, request.output.top_k)
    return request.count * len(loaded.labels) * (BINARY_VALUE_BYTES if request.output.binary else JSON_VALUE_BYTES)


def encode(
    model: str, version: str, request: InferRequest, rows: Probabilities, labels: Sequence[str]
) -> EncodedResponse:
    """Encodes `rows`, float32 (n, classes), in the form that the request specifies."""
    requested, (count, classes) = request.output, rows.shape
    k = min(requested.top_k, classes)
    output: dict[str, Any] = {
        "name": PROBABILITIES,
        "datatype": IMAGES if k else "FP32",
        "shape": [count, k or classes],
    }
    if requested.binary:
        raw = list(_raw_names(rows, labels, k)) if k else [rows.astype("<f4", copy=False).tobytes()]
        output["parameters"] = {"binary_data_size": sum(map(len, raw))}
        text = _document(model, version, request, output)
        return EncodedResponse([text, *raw] if len(raw) > 1 else text + raw[0], len(text))
    values = np.ascontiguousarray(rows).reshape(-1)
    if count * (k or classes) <= SLICE_VALUES:  # encodes everything in one call, which saves 4 us for one image
        output["data"] = _class_names(rows, labels, k) if k else values
        return EncodedResponse(_document(model, version, request, output), None)
    start, _, end = _document(model, version, request, output | {"data": []}).rpartition(NO_DATA)
    parts = _json_names(rows, labels, k) if k else _json_values(values)
    return EncodedResponse(join(start + NO_DATA[:-1], parts, b"]" + end), None)


def _document(model: str, version: str, request: InferRequest, output: dict[str, Any]) -> bytes:
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request.id is not None:
        document["id"] = request.id
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _class_names(rows: Probabilities, labels: Sequence[str], k: int) -> list[str]:
    """Returns strings of the form "probability:index:label"."""
    return [f"{p.probability:f}:{p.index}:{p.label}" for row in rows for p in top_k(row, labels, k)]


def _json_values(values: NDArray[np.float32]) -> Iterator[bytes]:
    return (json_items(values[part]) for part in row_slices(len(values), 1))


def _json_names(rows: Probabilities, labels: Sequence[str], k: int) -> Iterator[bytes]:
    return (json_items(_class_names(rows[part], labels, k)) for part in row_slices(len(rows), k))


def _raw_names(rows: Probabilities, labels: Sequence[str], k: int) -> Iterator[bytes]:
    for part in row_slices(len(rows), k):
        texts = map(str.encode, _class_names(rows[part], labels, k))
        yield b"".join(LENGTH.pack(len(text)) + text for text in texts)
