"""OpenAPI entries of inference in the protocols of other servers: Open Inference V2, TensorFlow Serving, KServe V1."""

from pydantic import BaseModel

from service.api.openapi.error_responses import PREDICTION_ERRORS, Json, error_responses, json_content
from service.api.schemas import ErrorText
from service.api.v1.predict import Predict
from service.api.v1.schemas import ColumnReply, PredictColumn, PredictRows, RowsReply
from service.api.v2.infer import Infer
from service.api.v2.schemas import ChangeRequest, IndexRequest, InferBody, InferReply
from service.errors import BadTensor
from service.model_store.manifest import IMAGE, PROBABILITIES

MODEL: Json = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "example": "mnist-lenet5",
}
VERSION: Json = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "Number, or label.",
    "schema": {"type": "string"},
    "example": "1",
}
LABEL: Json = VERSION | {"description": "A label that the operator gave to a version.", "example": "stable"}
JSON_LENGTH: Json = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Bytes of JSON at the start of the body, if a raw tensor follows. 0: there is no JSON.",
    "schema": {"type": "integer", "minimum": 0},
}
SERVER_TIMING: Json = {
    "description": "Milliseconds of each stage, and the size of the batch that the request was part of.",
    "schema": {"type": "string"},
}
MODEL_DIGEST: Json = {
    "description": "Identifies the content of the version that was used: 16 hexadecimal digits.",
    "schema": {"type": "string"},
}
ANSWER_HEADERS: Json = {"Server-Timing": SERVER_TIMING, "Model-Digest": MODEL_DIGEST}
BINARY: Json = {"schema": {"type": "string", "format": "binary"}}

# A white stroke on black, 8 x 8. Every model accepts it, because images are scaled to the input.
EXAMPLE_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAAGElEQVR42mNgYOBgEmD+w8TAxMDEwMAAAApeASDSagJWAAAAAElFTkSuQmCC"
)
ENCODED_IMAGE: Json = {"name": IMAGE, "datatype": "BYTES", "shape": [1], "data": [EXAMPLE_PNG]}
INFER_EXAMPLES: Json = {
    "probabilities": {"summary": "An image to all probabilities", "value": {"id": "1", "inputs": [ENCODED_IMAGE]}},
    "labels": {
        "summary": "Two images to their three best classes",
        "value": {
            "inputs": [ENCODED_IMAGE | {"shape": [2], "data": [EXAMPLE_PNG, EXAMPLE_PNG]}],
            "outputs": [{"name": PROBABILITIES, "parameters": {"classification": 3}}],
        },
    },
}
PREDICT_EXAMPLES: Json = {
    "row": {"summary": "An image to all probabilities", "value": {"instances": [{"b64": EXAMPLE_PNG}]}},
    "column": {"summary": "The same as a column", "value": {"inputs": {IMAGE: [{"b64": EXAMPLE_PNG}]}}},
    "labels": {
        "summary": "Two images to their three best classes",
        "value": {"instances": [{IMAGE: {"b64": EXAMPLE_PNG}}] * 2, "parameters": {"top_k": 3}},
    },
}

SHAPES: tuple[type[BaseModel], ...] = (
    ErrorText,
    IndexRequest,
    ChangeRequest,
    InferBody,
    InferReply,
    PredictRows,
    PredictColumn,
    RowsReply,
    ColumnReply,
)
"""Schemas that the entries refer to."""


def protocol_paths() -> Json:
    """Returns the entries by path."""
    return {
        Infer.path: {"post": _infer("infer", [MODEL])},
        Infer.path_with_version: {"post": _infer("infer_version", [MODEL, VERSION])},
        Predict.path: {"post": _predict("predict", [MODEL])},
        Predict.path_with_version: {"post": _predict("predict_version", [MODEL, VERSION])},
        Predict.path_with_label: {"post": _predict("predict_label", [MODEL, LABEL])},
    }


def _infer(name: str, parameters: list[Json]) -> Json:
    success = {
        "description": "The tensor in JSON, or as raw bytes after the JSON if the request asks for it.",
        "headers": ANSWER_HEADERS | {JSON_LENGTH["name"]: {"schema": JSON_LENGTH["schema"]}},
        "content": json_content(InferReply) | {"application/octet-stream": BINARY},
    }
    return {
        "operationId": name,
        "tags": ["Open Inference Protocol V2"],
        "summary": "Tensors or encoded images to probabilities or labels",
        "description": "Bodies may be compressed with gzip or deflate, and answers follow Accept-Encoding.",
        "parameters": [*parameters, JSON_LENGTH],
        "requestBody": {
            "required": True,
            "content": json_content(InferBody, examples=INFER_EXAMPLES) | {"application/octet-stream": BINARY},
        },
        "responses": {"200": success} | error_responses(ErrorText, (BadTensor, *PREDICTION_ERRORS)),
    }


def _predict(name: str, parameters: list[Json]) -> Json:
    success = {
        "description": "`predictions` for `instances`, `outputs` for `inputs`.",
        "headers": ANSWER_HEADERS,
        "content": json_content(RowsReply, ColumnReply),
    }
    return {
        "operationId": name,
        "tags": ["TensorFlow Serving and KServe V1"],
        "summary": "Images to probabilities or labels",
        "description": "Bodies may be compressed with gzip or deflate, and answers follow Accept-Encoding.",
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": json_content(PredictRows, PredictColumn, examples=PREDICT_EXAMPLES),
        },
        "responses": {"200": success} | error_responses(ErrorText, (BadTensor, *PREDICTION_ERRORS)),
    }
