"""Encodes responses of TensorFlow Serving's REST API, which is also KServe V1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from service.api.http.response_encoder import (
    JSON_VALUE_BYTES,
    SLICE_VALUES,
    join,
    json_items,
    predictions_bytes,
    row_slices,
)
from service.api.http.responses import Body
from service.api.v1.request_parser import PredictRequest
from service.classification.top_k import Probabilities, top_k
from service.loaded_models.loaded_version import LoadedVersion


def max_response_bytes(request: PredictRequest, loaded: LoadedVersion) -> int:
    """Returns the maximum size of the response, which is known before the model runs."""
    if request.top_k:
        return predictions_bytes(loaded, request.count, request.top_k)
    return request.count * len(loaded.labels) * JSON_VALUE_BYTES


def encode(request: PredictRequest, rows: Probabilities, labels: Sequence[str]) -> Body:
    """Encodes the response with `rows`, float32 (n, classes), or with the most probable classes of each row by name."""
    k = request.top_k
    name = "predictions" if request.by_row else "outputs"
    if len(rows) * (min(k, rows.shape[1]) or rows.shape[1]) <= SLICE_VALUES:
        payload: Any = [top_k(row, labels, k) for row in rows] if k else np.ascontiguousarray(rows)
        return orjson.dumps({name: payload}, option=orjson.OPT_SERIALIZE_NUMPY)
    prefix = b'{"%b":[' % name.encode()
    parts = (rows[part] for part in row_slices(len(rows), min(k, rows.shape[1]) or rows.shape[1]))
    if k:
        return join(prefix, (json_items([top_k(row, labels, k) for row in part]) for part in parts), b"]}")
    return join(prefix, (json_items(np.ascontiguousarray(part)) for part in parts), b"]}")
