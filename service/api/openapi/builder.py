"""Adds the endpoints of the fast router, which are not FastAPI routes, to FastAPI's OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.auth.require_api_key import required_scope
from service.api.http.status_codes import FOREIGN_PROTOCOLS
from service.api.native.classify import Classify, ClassifyBatch
from service.api.native.explain import DEFAULT_METHOD, Explain
from service.api.native.explain_schemas import METHODS, ExplainReply, FeaturesReply, OcclusionReply
from service.api.openapi import protocols
from service.api.openapi.error_responses import PREDICTION_ERRORS, REF, Json, error_responses, json_content
from service.api.openapi.protocols import ANSWER_HEADERS, MODEL, protocol_paths
from service.api.schemas import BatchReply, BatchRequest, ClassifyReply, ErrorReply, ErrorText
from service.classification.top_k import DEFAULT_TOP_K
from service.errors import BadParameter, Forbidden, Unauthenticated
from service.imaging.decode import FORMATS
from service.model_store.manifest import MIN_LIKELY_PROBABILITY

IMAGE = {"type": "string", "format": "binary"}
IMAGE_FORMATS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} (first frame); recognised by its bytes."
VERSION = {
    "name": "version",
    "in": "query",
    "description": "Number or label of the version. Default: the model's default version.",
    "schema": {"type": "string"},
}
PARAMETERS = [
    MODEL,
    {
        "name": "top_k",
        "in": "query",
        "description": f"Number of classes, most probable first. Default: {DEFAULT_TOP_K}, or for a model whose "
        f"`activation` is `sigmoid`, all labels with a probability above {MIN_LIKELY_PROBABILITY}.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
    VERSION,
]
EXPLAIN_PARAMETERS = [
    MODEL,
    {
        "name": "method",
        "in": "query",
        "description": "`occlusion`: which pixels speak for a class, found by covering the image patch by patch. "
        "`features`: filters and feature maps, if the version was published with them. `input`: the image as the "
        "network sees it, which the other methods return as well.",
        "schema": {"type": "string", "enum": list(METHODS), "default": DEFAULT_METHOD},
    },
    {
        "name": "class",
        "in": "query",
        "description": "For `occlusion`: label or index of the class. Default: the most probable class.",
        "schema": {"type": "string"},
    },
    VERSION,
]
EXPLAIN_REPLIES = (OcclusionReply, FeaturesReply, ExplainReply)
SHAPES = (BatchRequest, BatchReply, ClassifyReply, ErrorReply, *EXPLAIN_REPLIES, *protocols.SHAPES)


def install_openapi(app: FastAPI, with_keys: bool = False) -> None:
    """Adds the endpoints of the fast router to `app.openapi()` and /docs, and API keys if the service uses them."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generated()
            schema["paths"] = _fast_paths() | protocol_paths() | schema["paths"]
            schema["components"]["schemas"].update(_schemas())
            _remove_validation_errors(schema)
            if with_keys:
                _add_api_keys(schema)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _fast_paths() -> Json:
    return {
        Classify.path: {"post": _classify()},
        ClassifyBatch.path: {"post": _classify_batch()},
        Explain.path: {"post": _explain()},
    }


def _classify() -> Json:
    description = f"The image is the body, or the one file of a form. {IMAGE_FORMATS}"
    return _operation("classify", "Classify one image", description, _one_image(), ClassifyReply)


def _classify_batch() -> Json:
    content = {
        "multipart/form-data": {"schema": _form("files", {"type": "array", "minItems": 1, "items": IMAGE})},
    } | json_content(BatchRequest)
    description = f"Results are in the order of the images. A broken image fails alone. {IMAGE_FORMATS}"
    return _operation("classify_batch", "Classify many images", description, content, BatchReply)


def _explain() -> Json:
    description = (
        "Returns JSON with images in base64, or one PNG with `Accept: image/png`. It runs as background work in the "
        "model's queue, with limited cost. While other explanations are running, it is rejected with 429."
    )
    operation = _operation("explain", "Explain one answer", description, _one_image(), *EXPLAIN_REPLIES)
    operation["parameters"] = EXPLAIN_PARAMETERS
    operation["responses"]["200"]["description"] = "The explanation, by method."
    operation["responses"]["200"]["content"]["image/png"] = {"schema": IMAGE}
    return operation


def _one_image() -> Json:
    return {
        "application/octet-stream": {"schema": IMAGE},
        "image/*": {"schema": IMAGE},
        "multipart/form-data": {"schema": _form("file", IMAGE)},
    }


def _operation(name: str, summary: str, description: str, content: Json, *replies: type[BaseModel]) -> Json:
    success = {
        "description": "The labels.",
        "headers": ANSWER_HEADERS,
        "content": json_content(*replies),
    }
    return {
        "operationId": name,
        "tags": ["classification"],
        "summary": summary,
        "description": description,
        "parameters": PARAMETERS,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": success} | error_responses(ErrorReply, (BadParameter, *PREDICTION_ERRORS)),
    }


def _form(field: str, schema: Json) -> Json:
    return {"type": "object", "required": [field], "properties": {field: schema}}


def _schemas() -> Json:
    models = [(shape, "validation") for shape in SHAPES]
    _, definitions = models_json_schema(models, ref_template=REF + "{model}")  # type: ignore[arg-type]
    return dict(definitions["$defs"])


def _add_api_keys(schema: Json) -> None:
    """Documents which paths need an API key, and the errors of requests without one."""
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        shape = ErrorText if path.startswith(FOREIGN_PROTOCOLS) else ErrorReply
        for operation in operations.values() if required_scope(path) else ():
            operation["security"] = [{"key": []}]
            operation["responses"] |= error_responses(shape, (Unauthenticated, Forbidden))


def _remove_validation_errors(schema: Json) -> None:
    """Removes FastAPI's 422 from paths with parameters, because all parameters are texts and cannot be invalid."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
