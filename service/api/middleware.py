"""The outermost layer of every request: its id, its one log line, its metrics, and the errors nobody foresaw."""

import logging
import random
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.http.errors import LOG_FIELDS, ClientGone, respond
from service.api.http.request_headers import REQUEST_CONTEXT, header
from service.api.http.responses import missing_security_headers
from service.classification.request_context import RequestContext
from service.errors import ConvoyError, OutOfMemory
from service.observability import logs
from service.observability.logs import LogRateLimiter
from service.observability.metrics import Metrics
from service.observability.tracing import Tracer
from service.workers.shutdown import Lifecycle

BAD, SHED, FAULT = 400, 429, 500  # refusals under overload are too many to log each, and are no errors of anybody
MAX_REQUEST_ID_LENGTH = 128
LESS = "Try again, or send fewer or smaller images at once."
CLIENT_GONE = 499  # nginx's code for a client that hung up; it is logged and counted, never sent


class RequestMiddleware:
    """Plain ASGI. `scope[LOG_FIELDS]` holds the fields of the request's log line; the layers below add to them."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, lifecycle: Lifecycle, sampler: LogRateLimiter, tracer: Tracer | None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._sampler = sampler
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        request_id = _request_id(scope)
        fields = {"request_id": request_id.decode()}
        scope[LOG_FIELDS] = fields
        status, is_get = CLIENT_GONE, scope["method"] == "GET"

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
                if is_get:
                    message["headers"] += missing_security_headers(message["headers"])
                if self._lifecycle.closing:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        self._metrics.open_requests += 1
        try:
            await self._app(scope, receive, send_marked)
        except ClientGone:
            pass
        except Exception as error:
            answer = _unforeseen(error, fields)
            if status == CLIENT_GONE:  # nothing was answered yet
                await respond(scope, answer)(scope, receive, send_marked)
        finally:
            self._metrics.open_requests -= 1
            self._record(scope, status, started_s, time.perf_counter())

    def _record(self, scope: Scope, status: int, started_s: float, ended_s: float) -> None:
        route = _route(scope)
        self._metrics.answered(route, status, ended_s - started_s)
        if self._tracer is not None:
            self._trace(self._tracer, scope, route, status, started_s, ended_s)
        if logs.logger.isEnabledFor(logging.INFO):
            skipped = self._sampler.take(ended_s)
            if skipped is not None or (status >= BAD and status != SHED):
                _log(scope, status, ended_s - started_s, skipped)

    def _trace(self, tracer: Tracer, scope: Scope, route: str, status: int, started_s: float, ended_s: float) -> None:
        context: RequestContext | None = scope.get(REQUEST_CONTEXT)
        trace_id = tracer.record(
            name=f"{scope['method']} {route}",
            parent=header(scope, b"traceparent").decode("latin-1"),
            state=header(scope, b"tracestate").decode("latin-1"),
            span=(started_s, ended_s),
            stages=context.timings.stages() if context is not None else [],
            failed=status >= FAULT,
            attributes=_attributes(scope, route, status, context),
        )
        if trace_id:
            scope[LOG_FIELDS]["trace_id"] = trace_id


def _unforeseen(error: Exception, fields: dict[str, str]) -> ConvoyError:
    """Logs what no endpoint knew of, and gives what to answer. Missing memory is nobody's mistake: no traceback."""
    request_id = fields["request_id"]
    if isinstance(error, MemoryError):
        answer = OutOfMemory("The service has no memory left for this request.", LESS)
        fields["error"] = answer.code
        logs.event(logging.ERROR, "out of memory", request_id=request_id)
        return answer
    logs.logger.error("unforeseen error", exc_info=error, extra={"fields": {"request_id": request_id}})
    return ConvoyError("The service made a mistake.")


def _log(scope: Scope, status: int, seconds: float, skipped: int | None) -> None:
    context: RequestContext | None = scope.get(REQUEST_CONTEXT)
    fields = scope[LOG_FIELDS] | (context.log_fields() if context is not None else {})
    client = scope["client"][0] if scope["client"] else None
    fields |= {"method": scope["method"], "path": scope["path"], "status": status, "client": client}
    fields["ms"] = round(seconds * 1000, 3)
    if skipped:
        fields["skipped"] = skipped
    logs.event(logging.INFO, "request", **fields)


def _attributes(scope: Scope, route: str, status: int, context: RequestContext | None) -> dict[str, str | int]:
    """In OpenTelemetry's words where it has them."""
    attributes: dict[str, str | int] = {
        "http.request.method": scope["method"],
        "http.response.status_code": status,
        "http.route": route,
        "url.path": scope["path"],
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
    given = header(scope, b"x-request-id")
    usable = 0 < len(given) <= MAX_REQUEST_ID_LENGTH and given.isascii() and given.decode().isprintable()
    return given if usable else b"%032x" % random.getrandbits(128)  # no secret: no call into the kernel for each


def _route(scope: Scope) -> str:
    """The route's template, never the path itself: strangers' paths must not become metric labels."""
    endpoint = scope.get("endpoint")
    known = getattr(endpoint, "path", None) or getattr(scope.get("route"), "path", None)
    return known if isinstance(known, str) else "other"
