"""Encodes responses of TensorFlow Serving's REST API, which is also KServe V1."""

from collections.abc import Sequence

import numpy as np

from service.api.http.response_encoder import JSON_VALUE_BYTES, join, json_items, predictions_bytes, row_slices
from service.api.http.responses import Body
from service.api.v1.request_parser import PredictRequest
from service.classification.top_k import Probabilities, top_k
from service.loaded_models.loaded_version import LoadedVersion


def max_response_bytes(request: PredictRequest, loaded: LoadedVersion) -> int:
    """The size of the response, at most; known before the model runs."""
    if request.top_k:
        return predictions_bytes(loaded, request.count, request.top_k)
    return request.count * len(loaded.labels) * JSON_VALUE_BYTES


def encode(request: PredictRequest, rows: Probabilities, labels: Sequence[str]) -> Body:
    """Encodes the response with `rows`, float32 (n, classes), or with the most probable classes of each by name."""
    k = request.top_k
    prefix = b'{"predictions":[' if request.by_row else b'{"outputs":['
    parts = (rows[part] for part in row_slices(len(rows), min(k, rows.shape[1]) or rows.shape[1]))
    if k:
        return join(prefix, (json_items([top_k(row, labels, k) for row in part]) for part in parts), b"]}")
    return join(prefix, (json_items(np.ascontiguousarray(part)) for part in parts), b"]}")
