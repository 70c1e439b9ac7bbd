"""Adds HEAD and OPTIONS to every route. Defines no routes."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROUTED_METHODS = ("GET", "POST")  # the methods of all routes
WHOLE_SERVER = b"*"


class HeadAndOptions:
    """Plain ASGI around the router: answers HEAD like GET without a body, and OPTIONS with the methods of the path."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        """Routes may be added to `routes` later."""
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["type"] == "http" else ""
        if method == "HEAD":
            await self._answer_head(scope, receive, send)
        elif method == "OPTIONS" and (methods := allowed_methods(self._routes, scope)):
            await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", methods.encode())]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_body(message: Message) -> None:
            scope["method"] = "HEAD"  # makes the server send only the headers
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_without_body)
        finally:
            scope["method"] = "HEAD"


def allowed_methods(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Returns the value of the header Allow for the path, from all its routes; empty for an unknown path.

    `OPTIONS *` requests the methods of the whole server (RFC 9110, 9.3.7).
    """
    if scope.get("raw_path") == WHOLE_SERVER:
        return ", ".join([*ROUTED_METHODS, "HEAD", "OPTIONS"])
    methods = [method for method in ROUTED_METHODS if _is_routed(routes, {**scope, "method": method})]
    if not methods:
        return ""
    return ", ".join([*methods, *["HEAD"] * ("GET" in methods), "OPTIONS"])


def _is_routed(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in routes)
