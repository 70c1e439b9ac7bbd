"""Errors on the wire: the one table of status codes, and the one JSON shape."""

import logging
import math
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Scope

from service import errors
from service.api.http.responses import json_bytes
from service.observability import logs

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
    errors.TooManyImages: 413,
    errors.TooManyPixels: 413,
    errors.UnsupportedImage: 415,
    errors.UnsupportedBody: 415,
    errors.BadParameter: 422,
    errors.Overloaded: 429,
    errors.HeadersTooLarge: 431,
    errors.ModelFailed: 500,
    errors.BadState: 500,
    errors.OutOfMemory: 503,
    errors.NotEverywhere: 504,
    errors.NotReady: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
}

LOG_FIELDS = "convoy.log_fields"
"""Key of the scope that holds the fields of the request's log line."""

FOREIGN_PROTOCOLS = ("/v1/", "/v2/")

# What Starlette itself refuses, before any of our code runs.
ROUTING = {
    404: ("not_found", "There is no such path.", "See /docs for the paths."),
    405: ("method_not_allowed", "The path does not take this method.", "See /docs for the paths and their methods."),
}


class ClientGone(Exception):
    """The client hung up: there is nobody left to answer."""


def as_json(error: errors.ConvoyError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint}


def headers_of(error: errors.ConvoyError) -> dict[str, str]:
    """Retry-After in whole seconds where waiting helps; WWW-Authenticate where a key does (RFC 6750); a refused body
    leaves its rest unread, so that the connection cannot be used again."""
    if isinstance(error, errors.Overloaded):
        return {"retry-after": str(max(1, math.ceil(error.retry_after_s)))}
    if isinstance(error, errors.NotReady | errors.Draining | errors.OutOfMemory):
        return {"retry-after": "1"}
    if isinstance(error, errors.Unauthenticated):
        return {"www-authenticate": 'Bearer realm="convoy"' + ', error="invalid_token"' * error.given}
    if isinstance(error, errors.Forbidden):
        return {"www-authenticate": f'Bearer realm="convoy", error="insufficient_scope", scope="{error.scope}"'}
    return {"connection": "close"} if isinstance(error, errors.BodyTooLarge | errors.SlowRequest) else {}


class ErrorResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json_bytes(content)


def respond(scope: Scope, error: errors.ConvoyError) -> ErrorResponse:
    """The response to a request that failed so, in the shape of the protocol that it spoke."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    return ErrorResponse(_body(scope, as_json(error)), status, headers_of(error))


def _body(scope: Scope, error: dict[str, Any]) -> dict[str, Any]:
    """The protocols of others know a text only; Convoy's own has code, message and hint."""
    if f"{get_route_path(scope)}/".startswith(FOREIGN_PROTOCOLS):
        return {"error": f"{error['message']} {error['hint']}"}
    return {"error": error}


def answer_error(scope: Scope, error: errors.ConvoyError) -> ErrorResponse:
    """`respond`, and the error's code in the request's log line."""
    scope[LOG_FIELDS]["error"] = error.code
    if isinstance(error, errors.ModelFailed):
        logs.event(logging.ERROR, "model failed", request_id=scope[LOG_FIELDS]["request_id"], reason=error.message)
    return respond(scope, error)


async def on_convoy_error(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, errors.ConvoyError)
    return answer_error(request.scope, error)


async def on_unforeseen(request: Request, error: Exception) -> ErrorResponse:
    """Starlette raises the error again afterwards, and the edge logs it."""
    return respond(request.scope, errors.ConvoyError("The service made a mistake."))


async def on_http_exception(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, HTTPException)
    if error.status_code not in ROUTING:  # no client's mistake: 401 is Starlette's for a page that it may not read
        raise error
    code, message, hint = ROUTING[error.status_code]
    request.scope[LOG_FIELDS]["error"] = code
    body = _body(request.scope, {"code": code, "message": message, "hint": hint})
    return ErrorResponse(body, error.status_code, dict(error.headers or {}))


async def on_invalid_parameters(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return await on_convoy_error(request, errors.BadParameter(f"{first['loc'][-1]}: {first['msg']}."))
