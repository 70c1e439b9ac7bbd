"""Converts errors to HTTP responses: the only table of status codes, and the JSON of each protocol."""

import logging
import math
from collections.abc import Iterable
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Scope

from service import errors
from service.api.http.head_and_options import allowed_methods
from service.api.http.responses import json_bytes
from service.observability import logs
from service.validation_messages import describe_first

STATUS: dict[type[errors.ConvoyError], int] = {
    errors.BadHttp: 400,
    errors.BadImage: 400,
    errors.BadRequest: 400,
    errors.BadTensor: 400,
    errors.BrokenVersion: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotAllowed: 403,
    errors.UnknownModel: 404,
    errors.UnknownVersion: 404,
    errors.UnknownDocument: 404,
    errors.SlowRequest: 408,
    errors.BodyTooLarge: 413,
    errors.ImageTooLarge: 413,
    errors.ResponseTooLarge: 413,
    errors.TooManyImages: 413,
    errors.TooManyPixels: 413,
    errors.UnsupportedImage: 415,
    errors.UnsupportedBody: 415,
    errors.BadParameter: 422,
    errors.QueueFull: 429,
    errors.TooLateToStart: 429,
    errors.HeadersTooLarge: 431,
    errors.ModelFailed: 500,
    errors.BadState: 500,
    errors.ModelHung: 503,
    errors.MemoryFull: 503,
    errors.OutOfMemory: 503,
    errors.NotEverywhere: 504,
    errors.BrokenModel: 503,
    errors.NotReady: 503,
    errors.TooManyConnections: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
    errors.DeadlineTooShort: 504,
    errors.ExpiredInQueue: 504,
    errors.UnsupportedHttpVersion: 505,
}

LOG_FIELDS = "convoy.log_fields"
"""Key in the ASGI scope for the fields of the request's log line."""

FOREIGN_PROTOCOLS = ("/v1/", "/v2/")

# Errors that Starlette raises itself, when no endpoint matches the request.
ROUTING_ERRORS = {
    404: ("not_found", "There is no such path.", "See /docs for the paths."),
    405: ("method_not_allowed", "The path does not allow this method.", "See /docs for the paths and their methods."),
}


class ClientDisconnected(Exception):
    """The client has disconnected, so no response can be sent."""


def error_json(error: errors.ConvoyError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint}


def error_headers(error: errors.ConvoyError) -> dict[str, str]:
    """Returns Retry-After in whole seconds if waiting helps, and WWW-Authenticate if a key helps (RFC 6750).

    Includes `Connection: close` if the body was rejected, because the rest of the body is not read.
    """
    if isinstance(error, errors.Overloaded):
        return {"retry-after": str(max(1, math.ceil(error.retry_after_s)))}
    if isinstance(error, errors.NotReady | errors.Draining | errors.OutOfMemory):
        return {"retry-after": "1"}
    if isinstance(error, errors.Unauthenticated):
        return {"www-authenticate": 'Bearer realm="convoy"' + ', error="invalid_token"' * error.key_sent}
    if isinstance(error, errors.Forbidden):
        return {"www-authenticate": f'Bearer realm="convoy", error="insufficient_scope", scope="{error.scope}"'}
    return {"connection": "close"} if isinstance(error, errors.BodyTooLarge | errors.SlowRequest) else {}


class ErrorResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json_bytes(content)


def error_response(scope: Scope, error: errors.ConvoyError) -> ErrorResponse:
    """Returns the response for the error, in the format of the request's protocol."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    return ErrorResponse(_error_body(scope, error_json(error)), status, error_headers(error))


def _error_body(scope: Scope, error: dict[str, Any]) -> dict[str, Any]:
    """Returns an error as JSON. In the protocols V1 and V2 it has a string and the code, in Convoy's own code, message
    and hint."""
    if f"{get_route_path(scope)}/".startswith(FOREIGN_PROTOCOLS):
        return {"error": f"{error['message']} {error['hint']}", "code": error["code"]}
    return {"error": error}


def handle_error(scope: Scope, error: errors.ConvoyError) -> ErrorResponse:
    """Does the same as `error_response`, adds the error's code to the request's log line, and drops its frames."""
    scope[LOG_FIELDS]["error"] = error.code
    log_model_failure(scope, [error])
    return error_response(scope, error.without_frames())


def log_model_failure(scope: Scope, results: Iterable[object]) -> None:
    """Logs the first failure of a model among the results of a request. The hint of the error refers to this line."""
    failures = [result for result in results if isinstance(result, errors.ModelFailed | errors.BrokenVersion)]
    if failures:
        fields = {"request_id": scope[LOG_FIELDS]["request_id"], "reason": failures[0].full_message}
        logs.event(logging.ERROR, "model failed", **fields, images=len(failures))


async def on_convoy_error(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, errors.ConvoyError)
    return handle_error(request.scope, error)


async def on_unexpected_error(request: Request, error: Exception) -> ErrorResponse:
    """Returns the response. Starlette then raises the error again, and RequestMiddleware logs it."""
    return error_response(request.scope, errors.ConvoyError("An internal error occurred."))


async def on_http_exception(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, HTTPException)
    if error.status_code not in ROUTING_ERRORS:
        raise error  # a fault of the service: Starlette raises 401 for an unreadable static file
    code, message, hint = ROUTING_ERRORS[error.status_code]
    request.scope[LOG_FIELDS]["error"] = code
    body = _error_body(request.scope, {"code": code, "message": message, "hint": hint})
    headers = {"allow": allowed_methods(request.app.router.routes, request.scope)} if error.status_code == 405 else {}
    return ErrorResponse(body, error.status_code, headers)


async def on_invalid_parameters(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, RequestValidationError)
    field, reason = describe_first(error.errors())
    return await on_convoy_error(request, errors.BadParameter(f"{field}: {reason}."))
