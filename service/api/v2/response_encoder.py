"""Answers of the Open Inference Protocol V2, to bytes: numbers or class names, as JSON or behind it as raw tensors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.api.v2.request_parser import IMAGES, LENGTH, InferRequest, WantedOutput
from service.classification.top_k import Probabilities, top_k
from service.model_store.manifest import PROBABILITIES


class Encoded(NamedTuple):
    """A response body; `json_length` is its header's length where a raw tensor follows, else None."""

    body: bytes
    json_length: int | None


def encode(model: str, version: str, request: InferRequest, rows: Probabilities, labels: Sequence[str]) -> Encoded:
    """The response with `rows`, float32 (n, classes), in the form that the request asked for."""
    wanted = request.output
    output, raw = _named(rows, labels, wanted) if wanted.top_k else _numbers(rows, wanted)
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request.id is not None:
        head["id"] = request.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return Encoded(text + raw, len(text)) if wanted.binary else Encoded(text, None)


def _numbers(rows: Probabilities, wanted: WantedOutput) -> tuple[dict[str, Any], bytes]:
    output: dict[str, Any] = {"name": PROBABILITIES, "datatype": "FP32", "shape": list(rows.shape)}
    if not wanted.binary:
        return output | {"data": np.ascontiguousarray(rows).reshape(-1)}, b""
    raw = rows.astype("<f4", copy=False).tobytes()
    return output | {"parameters": {"binary_data_size": len(raw)}}, raw


def _named(rows: Probabilities, labels: Sequence[str], wanted: WantedOutput) -> tuple[dict[str, Any], bytes]:
    """Each element is "probability:index:label"."""
    texts = [f"{p.probability:f}:{p.index}:{p.label}" for row in rows for p in top_k(row, labels, wanted.top_k)]
    output = {"name": PROBABILITIES, "datatype": IMAGES, "shape": [len(rows), len(texts) // len(rows)]}
    if not wanted.binary:
        return output | {"data": texts}, b""
    raw = b"".join(LENGTH.pack(len(text)) + text for text in map(str.encode, texts))
    return output | {"parameters": {"binary_data_size": len(raw)}}, raw
