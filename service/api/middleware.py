"""The outermost layer of every request: request id, log line, metrics, trace, and unexpected errors."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.http.body_budget import release_body
from service.api.http.disconnect import CONNECTION, Connection
from service.api.http.request_headers import REQUEST_CONTEXT, header
from service.api.http.responses import missing_security_headers, with_path_only_location
from service.api.http.status_codes import LOG_FIELDS, ClientDisconnected, error_response
from service.classification.request_context import RequestContext
from service.errors import ConvoyError, Draining, OutOfMemory
from service.observability import logs
from service.observability.logs import RequestLogLimiter, is_server_error, shorten
from service.observability.metrics import OTHER_LABEL, Metrics
from service.observability.tracing import Tracer
from service.workers.shutdown import ShutdownState

MAX_REQUEST_ID_LENGTH = 128
OUT_OF_MEMORY_HINT = "Try again, or send fewer or smaller images at once."
NOT_FOUND = 404
REDIRECTS = range(300, 400)
HEALTH_CHECK = re.compile(r".*/health/.*|.*/ready|/v1/models/[^:]*")
"""Routes of the health checks of the service and of a model, in every protocol. Alerts leave out the same routes."""
CLIENT_CLOSED_REQUEST = 499  # nginx's code for a client that has disconnected; logged and counted, but never sent


class RequestMiddleware:
    """Plain ASGI. `scope[LOG_FIELDS]` holds the fields of the request's log line; the layers below add to them."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        shutdown_state: ShutdownState,
        log_limiter: RequestLogLimiter,
        tracer: Tracer | None,
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        """Routes may be added to `routes` later."""
        self._app = app
        self._metrics = metrics
        self._shutdown_state = shutdown_state
        self._log_limiter = log_limiter
        self._tracer = tracer
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        request_id = _request_id(scope)
        fields = {"request_id": request_id.decode()}
        scope[LOG_FIELDS] = fields
        status, is_read = CLIENT_CLOSED_REQUEST, scope["method"] in ("GET", "HEAD")

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
                if status in REDIRECTS:
                    message["headers"] = with_path_only_location(message["headers"])
                if is_read:
                    message["headers"] += missing_security_headers(message["headers"])
                if self._shutdown_state.is_closing:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        self._metrics.open_requests += 1
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            if not self._shutdown_state.is_rejecting:
                raise
            lost = self._give_up(scope, fields)
            if lost is not None and status == CLIENT_CLOSED_REQUEST:  # no response has been started
                await error_response(scope, lost)(scope, receive, send_with_headers)
        except Exception as error:
            reported = _log_unexpected(error, fields)
            if status == CLIENT_CLOSED_REQUEST:  # no response has been started
                await error_response(scope, reported)(scope, receive, send_with_headers)
        finally:
            release_body(scope)
            self._metrics.open_requests -= 1
            self._record(scope, status, started_s, time.perf_counter())

    def _give_up(self, scope: Scope, fields: dict[str, str]) -> Draining | None:
        """Counts a request that the stopping service has cancelled, and returns the error to report; None if the client
        has disconnected."""
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        connection: Connection | None = scope.get(CONNECTION)
        if connection is not None and connection.is_disconnected:
            return None
        self._shutdown_state.lost_requests += 1
        self._metrics.lost_requests.inc()
        fields["error"] = Draining.code
        return Draining("The service stopped before it could answer the request.")

    def _record(self, scope: Scope, status: int, started_s: float, ended_s: float) -> None:
        route = _route(scope) or (OTHER_LABEL if status == NOT_FOUND else _matching_route(self._routes, scope))
        self._metrics.record_request(route, status, ended_s - started_s)
        if self._tracer is not None:
            self._trace(self._tracer, scope, route, status, started_s, ended_s)
        level = _log_level(route, status)
        if logs.logger.isEnabledFor(level):
            skipped = self._log_limiter.try_acquire(status, ended_s)
            if skipped is not None:
                _log(scope, level, status, ended_s - started_s, skipped)

    def record_unrouted(self, status: int, error_code: str, client: str | None) -> None:
        """Counts and logs a request that the server has rejected before it reached the application."""
        self._metrics.count_unrouted_request(status)
        skipped = self._log_limiter.try_acquire(status, time.perf_counter())
        if skipped is not None:
            fields = {"skipped": skipped} if skipped else {}
            level = _log_level(OTHER_LABEL, status)
            logs.event(level, "request", status=status, error=error_code, client=client, **fields)

    def _trace(self, tracer: Tracer, scope: Scope, route: str, status: int, started_s: float, ended_s: float) -> None:
        context: RequestContext | None = scope.get(REQUEST_CONTEXT)
        trace_id = tracer.record(
            name=f"{scope['method']} {route}",
            traceparent=header(scope, b"traceparent").decode("latin-1"),
            tracestate=header(scope, b"tracestate").decode("latin-1"),
            interval_s=(started_s, ended_s),
            stages=context.timings.stages() if context is not None else [],
            is_error=_is_failure(route, status),
            attributes=_span_attributes(scope, route, status, context),
        )
        if trace_id:
            scope[LOG_FIELDS]["trace_id"] = trace_id


def _is_failure(route: str, status: int) -> bool:
    """Whether the service failed. A health check that returns 503, for example while models load, is not a failure."""
    return is_server_error(status) and not HEALTH_CHECK.fullmatch(route)


def _log_level(route: str, status: int) -> int:
    return logging.ERROR if _is_failure(route, status) else logging.INFO


def _log_unexpected(error: Exception, fields: dict[str, str]) -> ConvoyError:
    """Logs an error that no endpoint handled, and returns the error to report. Logs no traceback for a MemoryError."""
    request_id = fields["request_id"]
    if isinstance(error, MemoryError):
        out_of_memory = OutOfMemory("The service does not have enough memory for this request.", OUT_OF_MEMORY_HINT)
        fields["error"] = out_of_memory.code
        logs.event(logging.ERROR, "out of memory", request_id=request_id)
        return out_of_memory
    logs.logger.error("unexpected error", exc_info=error, extra={"fields": {"request_id": request_id}})
    return ConvoyError("An internal error occurred.")


def _log(scope: Scope, level: int, status: int, seconds: float, skipped: int) -> None:
    context: RequestContext | None = scope.get(REQUEST_CONTEXT)
    fields = scope[LOG_FIELDS] | (context.log_fields() if context is not None else {})
    client = scope["client"][0] if scope["client"] else None
    fields |= {"method": scope["method"], "path": shorten(scope["path"]), "status": status, "client": client}
    fields["ms"] = round(seconds * 1000, 3)
    if skipped:
        fields["skipped"] = skipped
    logs.event(level, "request", **fields)


def _span_attributes(scope: Scope, route: str, status: int, context: RequestContext | None) -> dict[str, str | int]:
    """Returns the attributes of the request's span, named by OpenTelemetry's semantic conventions where possible."""
    attributes: dict[str, str | int] = {
        "http.request.method": scope["method"],
        "http.response.status_code": status,
        "http.route": route,
        "url.path": shorten(scope["path"]),
        "url.scheme": scope["scheme"],
        "convoy.request_id": scope[LOG_FIELDS]["request_id"],
    }
    if scope["client"]:
        attributes["client.address"] = scope["client"][0]
    if "error" in scope[LOG_FIELDS]:
        attributes["error.type"] = scope[LOG_FIELDS]["error"]
    if context is not None:
        attributes["convoy.model"] = context.loaded.model
        attributes["convoy.version"] = context.loaded.version
        attributes["convoy.batch_size"] = context.timings.batch_size
    return attributes


def _request_id(scope: Scope) -> bytes:
    client_id = header(scope, b"x-request-id")
    is_short = 0 < len(client_id) <= MAX_REQUEST_ID_LENGTH
    if is_short and client_id.isascii() and client_id.decode().isprintable():
        return client_id
    return b"%032x" % random.getrandbits(128)  # not a secret, so not worth a system call


def _route(scope: Scope) -> str:
    """Returns the route's template; empty for a request that was rejected before it was routed.

    Never returns the path itself, because arbitrary paths sent by clients must not become metric labels.
    """
    endpoint = scope.get("endpoint")
    template = getattr(endpoint, "path", None) or getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) else ""


def _matching_route(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Returns the template of the route that matches the path, for any method."""
    matching = (route for route in routes if route.matches(scope)[0] is not Match.NONE)
    template = getattr(next(matching, None), "path", None)
    return template if isinstance(template, str) else OTHER_LABEL
