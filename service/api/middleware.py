"""The outermost layer of every request: its id, its one log line, its metrics, and the errors nobody foresaw."""

import logging
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.api.body import header
from service.api.errors import ClientGone, respond
from service.api.pages import security_headers
from service.errors import ConvoyError
from service.lifecycle import Lifecycle
from service.metrics import Metrics

MAX_REQUEST_ID_LENGTH = 128
CLIENT_GONE = 499  # nginx's code for a client that hung up; it is logged and counted, never sent


class Edge:
    """Plain ASGI. `scope["convoy"]` carries the request's log fields; whoever learns something adds it there."""

    def __init__(self, app: ASGIApp, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._app = app
        self._metrics = metrics
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        request_id = _request_id(scope)
        fields: dict[str, Any] = {"request_id": request_id.decode()}
        scope["convoy"] = fields
        status, is_get = CLIENT_GONE, scope["method"] == "GET"

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
                if is_get:
                    message["headers"] += security_headers(message["headers"])
                if self._lifecycle.closing:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        self._metrics.open_requests += 1
        try:
            await self._app(scope, receive, send_marked)
        except ClientGone:
            pass
        except Exception:
            logs.logger.exception("unforeseen error", extra={"fields": {"request_id": fields["request_id"]}})
            await respond(scope, ConvoyError("The service made a mistake."))(scope, receive, send_marked)
        finally:
            self._metrics.open_requests -= 1
            self._record(scope, status, time.perf_counter() - started_s)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        self._metrics.requests.labels(route, status).inc()
        self._metrics.request_s.labels(route).observe(seconds)
        if logs.logger.isEnabledFor(logging.INFO):
            client = scope["client"][0] if scope["client"] else None
            request = {"method": scope["method"], "path": scope["path"], "status": status, "client": client}
            fields = scope["convoy"] | request | {"ms": round(seconds * 1000, 3)}
            logs.event(logging.INFO, "request", **fields)


def _request_id(scope: Scope) -> bytes:
    given = header(scope, b"x-request-id")
    usable = 0 < len(given) <= MAX_REQUEST_ID_LENGTH and given.isascii() and given.decode().isprintable()
    return given if usable else uuid.uuid4().hex.encode()


def _route(scope: Scope) -> str:
    """The route's template, never the path itself: strangers' paths must not become metric labels."""
    endpoint = scope.get("endpoint")
    known = getattr(endpoint, "path", None) or getattr(scope.get("route"), "path", None)
    return known if isinstance(known, str) else "other"
