"""Encodes responses of the Open Inference Protocol V2: numbers or class names, as JSON or as raw bytes behind it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.api.v2.request_parser import IMAGES, LENGTH, InferRequest, RequestedOutput
from service.classification.top_k import Probabilities, top_k
from service.model_store.manifest import PROBABILITIES


class EncodedResponse(NamedTuple):
    """A response body; `json_length` is the length of its JSON if a raw tensor follows, else None."""

    body: bytes
    json_length: int | None


def encode(
    model: str, version: str, request: InferRequest, rows: Probabilities, labels: Sequence[str]
) -> EncodedResponse:
    """Encodes `rows`, float32 (n, classes), in the form that the request specifies."""
    requested = request.output
    output, raw = _class_names(rows, labels, requested) if requested.top_k else _probabilities(rows, requested)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request.id is not None:
        document["id"] = request.id
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return EncodedResponse(text + raw, len(text)) if requested.binary else EncodedResponse(text, None)


def _probabilities(rows: Probabilities, requested: RequestedOutput) -> tuple[dict[str, Any], bytes]:
    output: dict[str, Any] = {"name": PROBABILITIES, "datatype": "FP32", "shape": list(rows.shape)}
    if not requested.binary:
        return output | {"data": np.ascontiguousarray(rows).reshape(-1)}, b""
    raw = rows.astype("<f4", copy=False).tobytes()
    return output | {"parameters": {"binary_data_size": len(raw)}}, raw


def _class_names(
    rows: Probabilities, labels: Sequence[str], requested: RequestedOutput
) -> tuple[dict[str, Any], bytes]:
    """Each element is "probability:index:label"."""
    texts = [f"{p.probability:f}:{p.index}:{p.label}" for row in rows for p in top_k(row, labels, requested.top_k)]
    output = {"name": PROBABILITIES, "datatype": IMAGES, "shape": [len(rows), len(texts) // len(rows)]}
    if not requested.binary:
        return output | {"data": texts}, b""
    raw = b"".join(LENGTH.pack(len(text)) + text for text in map(str.encode, texts))
    return output | {"parameters": {"binary_data_size": len(raw)}}, raw
