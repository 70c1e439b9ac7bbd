"""OpenAPI of the hot endpoints, written by hand because they are no FastAPI routes, joined to the generated rest."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from service.api.classify import DEFAULT_TOP_K, Classify, ClassifyBatch
from service.api.errors import STATUS
from service.api.schemas import BatchReply, BatchRequest, ClassifyReply, ErrorReply
from service.images import FORMATS

REF = "#/components/schemas/"
PICTURE = {"type": "string", "format": "binary"}
ABOUT_PICTURES = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} (first frame); recognised by its bytes."
PARAMETERS = [
    {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": "mnist-lenet5"},
    {
        "name": "top_k",
        "in": "query",
        "description": "How many classes to answer, the best first.",
        "schema": {"type": "integer", "minimum": 1, "default": DEFAULT_TOP_K},
    },
    {
        "name": "version",
        "in": "query",
        "description": "The version that answers; the model's default one if left out.",
        "schema": {"type": "string"},
    },
]


def install_openapi(app: FastAPI) -> None:
    """Makes `app.openapi()`, and with it /docs, tell of the hot endpoints too."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generated()
            schema["paths"] = _hot_paths() | schema["paths"]
            schema["components"]["schemas"].update(_schemas())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _hot_paths() -> dict[str, Any]:
    return {
        Classify.path: {"post": _classify()},
        ClassifyBatch.path: {"post": _classify_batch()},
    }


def _classify() -> dict[str, Any]:
    content = {
        "application/octet-stream": {"schema": PICTURE},
        "image/*": {"schema": PICTURE},
        "multipart/form-data": {"schema": _form("file", PICTURE)},
    }
    about = f"The picture is the body, or the one file of a form. {ABOUT_PICTURES}"
    return _operation("classify", "Classify one picture", about, content, "ClassifyReply")


def _classify_batch() -> dict[str, Any]:
    content = {
        "multipart/form-data": {"schema": _form("files", {"type": "array", "items": PICTURE})},
        "application/json": {"schema": {"$ref": REF + "BatchRequest"}},
    }
    about = f"The answer keeps the order; a broken picture costs only its own entry. {ABOUT_PICTURES}"
    return _operation("classify_batch", "Classify many pictures", about, content, "BatchReply")


def _operation(name: str, summary: str, about: str, content: dict[str, Any], reply: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["classification"],
        "summary": summary,
        "description": about,
        "parameters": PARAMETERS,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "The labels.", "content": _json(reply)}} | _error_responses(),
    }


def _error_responses() -> dict[str, Any]:
    kinds: dict[int, list[str]] = {}
    for kind, status in STATUS.items():
        kinds.setdefault(status, []).append(f"`{kind.code}`")
    return {
        str(status): {"description": " or ".join(codes), "content": _json("ErrorReply")}
        for status, codes in sorted(kinds.items())
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF + schema}}}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [field], "properties": {field: schema}}


def _schemas() -> dict[str, Any]:
    wanted = [(kind, "validation") for kind in (BatchRequest, BatchReply, ClassifyReply, ErrorReply)]
    _, definitions = models_json_schema(wanted, ref_template=REF + "{model}")  # type: ignore[arg-type]
    return dict(definitions["$defs"])
