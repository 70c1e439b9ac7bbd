"""Lets a request through when its API key allows it. Only there where the service has keys."""

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.auth.api_keys import INFERENCE, METRICS, REPOSITORY, Keyring
from service.api.http.errors import LOG_FIELDS, respond
from service.api.http.request_headers import header
from service.errors import ConvoyError

# Open to everybody: health, which orchestrators ask, and the pages, which hold nothing and ask for the key themselves.
OPEN = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"}
OPEN_UNDER = ("/playground/", "/docs/")
CHANGES_UNDER = "/v2/repository/models/"
BEARER = b"bearer "


class Guard:
    """Plain ASGI, below the edge. What no rule knows needs the scope of inference."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (needed := scope_of(get_route_path(scope))):
            try:
                scope[LOG_FIELDS]["key"] = self._keyring.allow(_secret(scope), needed)
            except ConvoyError as error:
                scope[LOG_FIELDS]["error"] = error.code
                await respond(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def scope_of(path: str) -> str:
    """What a key must allow for that path; empty where none is needed."""
    if path in OPEN or path.startswith(OPEN_UNDER):
        return ""
    if path == "/metrics":
        return METRICS
    return REPOSITORY if path.startswith(CHANGES_UNDER) else INFERENCE


def _secret(scope: Scope) -> bytes:
    given = header(scope, b"authorization")
    return given[len(BEARER) :].strip() if given[: len(BEARER)].lower() == BEARER else b""
