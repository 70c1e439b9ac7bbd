"""The outermost layer logs failures of the service as errors, and does not log health checks."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.middleware import RequestMiddleware
from service.observability.logs import RequestLogLimiter
from service.observability.metrics import Metrics
from service.workers.shutdown import ShutdownState

CLASSIFY, READY, V2_READY = "/api/v1/models/{model}/classify", "/health/ready", "/v2/health/ready"
V1_STATUS, V1_PREDICT = "/v1/models/{model}/versions/{version}", "/v1/models/{model}/versions/{version}:predict"


class FakeTracer:
    """Records whether each span is an error."""

    def __init__(self) -> None:
        self.errors: list[bool] = []

    def record(self, *, is_error: bool, **fields: Any) -> str:
        self.errors.append(is_error)
        return ""


class Endpoint:
    """The endpoint to which the request was routed."""

    def __init__(self, path: str) -> None:
        self.path = path


def middleware_for(path: str, status: int, tracer: Any = None) -> RequestMiddleware:
    """Returns the layer around an application that answers every request with `status`."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = Endpoint(path)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return RequestMiddleware(answer, Metrics(), ShutdownState(), RequestLogLimiter(0), tracer)


async def handle(middleware: RequestMiddleware) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/", "scheme": "http", "headers": [], "client": None}
    await middleware(scope, receive, send)


@pytest.mark.parametrize(
    ("path", "status", "level"),
    [
        (CLASSIFY, 200, logging.INFO),
        (CLASSIFY, 404, logging.INFO),
        (CLASSIFY, 429, logging.INFO),
        (CLASSIFY, 500, logging.ERROR),
        (CLASSIFY, 504, logging.ERROR),
        (READY, 503, logging.INFO),
        (V2_READY, 503, logging.INFO),
        ("/v2/models/{model}/ready", 503, logging.INFO),
        ("/v2/models/{model}/infer", 503, logging.ERROR),
        ("/v1/models/{model}", 503, logging.INFO),
        (V1_STATUS, 503, logging.INFO),
        (V1_PREDICT, 503, logging.ERROR),
        (CLASSIFY, 505, logging.INFO),
    ],
)
def test_only_failures_of_the_service_are_errors_in_logs_and_traces(
    path: str, status: int, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = FakeTracer()
    with caplog.at_level(logging.INFO, logger="convoy"):
        asyncio.run(handle(middleware_for(path, status, tracer)))
    assert [(record.message, record.levelno) for record in caplog.records] == [("request", level)]
    assert tracer.errors == [level == logging.ERROR]


@pytest.mark.parametrize(("status", "lines"), [(200, 0), (429, 0), (504, 1)])
def test_at_the_level_warning_only_failures_leave_a_line(
    status: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="convoy"):
        asyncio.run(handle(middleware_for(CLASSIFY, status)))
    assert len(caplog.records) == lines


@pytest.mark.parametrize(("status", "level"), [(400, logging.INFO), (503, logging.ERROR), (505, logging.INFO)])
def test_a_request_that_reached_no_route_is_logged_like_the_others(
    status: int, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="convoy"):
        middleware_for(CLASSIFY, 200).record_unrouted(status, "code", None)
    assert [record.levelno for record in caplog.records] == [level]
