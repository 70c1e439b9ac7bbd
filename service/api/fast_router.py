"""Calls the endpoints for images and tensors directly, without FastAPI's telemetry, middleware and routing.

FastAPI's layers take a sixth of the CPU time of a request with a tiny image. FastAPI has routes to the same endpoints,
which it documents, and which answer the same.
"""

from collections.abc import Iterable
from typing import Protocol

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.http.status_codes import handle_error
from service.errors import ConvoyError


class Endpoint(Protocol):
    """An ASGI application, and FastAPI's POST routes to it."""

    router: APIRouter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class EndpointResponse(Response):
    """The response of a FastAPI route whose endpoint itself reads the request and sends the response."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = self._endpoint
        await self._endpoint(scope, receive, send)


class FastRouter:
    """Sends POST requests to `endpoints`, by the paths of their routes, and everything else to `fallback`."""

    def __init__(self, endpoints: Iterable[Endpoint], fallback: ASGIApp) -> None:
        self._endpoints = [
            (route.path_regex, endpoint)
            for endpoint in endpoints
            for route in endpoint.router.routes
            if isinstance(route, APIRoute)
        ]
        self._fallback = fallback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = get_route_path(scope)
            for pattern, endpoint in self._endpoints:
                if (match := pattern.fullmatch(path)) is not None:
                    scope["path_params"] = match.groupdict()
                    scope["endpoint"] = endpoint
                    try:
                        await endpoint(scope, receive, send)
                    except ConvoyError as error:
                        await handle_error(scope, error)(scope, receive, send)
                    return
        await self._fallback(scope, receive, send)
