"""Adds to FastAPI's OpenAPI document the bodies that the endpoints read themselves, and API keys."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from service.api.auth.require_api_key import required_scope
from service.api.http.status_codes import FOREIGN_PROTOCOLS
from service.api.openapi.operations import REF, Json, error_responses, json_content
from service.api.schemas import BatchRequest, ErrorReply, ErrorText
from service.api.v1.schemas import PredictColumn, PredictRows
from service.api.v2.schemas import ChangeRequest, IndexRequest, InferBody
from service.errors import Forbidden, Unauthenticated

BODIES = (BatchRequest, PredictRows, PredictColumn, InferBody, IndexRequest, ChangeRequest)


def install_openapi(app: FastAPI, with_keys: bool = False) -> None:
    """Completes `app.openapi()` and /docs. `with_keys`: the service requires API keys."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generated()
            _, bodies = models_json_schema([(body, "validation") for body in BODIES], ref_template=REF + "{model}")
            schema["components"]["schemas"].update(bodies["$defs"])
            _remove_validation_errors(schema)
            if with_keys:
                _add_api_keys(schema)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_api_keys(schema: Json) -> None:
    """Documents which paths need an API key, and the errors of requests without one."""
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        shape = ErrorText if path.startswith(FOREIGN_PROTOCOLS) else ErrorReply
        for operation in operations.values() if required_scope(path) else ():
            operation["security"] = [{"key": []}]
            for status, response in error_responses(shape, Unauthenticated, Forbidden).items():
                entry = {"description": response["description"], "content": json_content(shape)}
                operation["responses"][str(status)] = entry


def _remove_validation_errors(schema: Json) -> None:
    """Removes FastAPI's 422 from paths with parameters, because no parameter is invalid for FastAPI."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
