"""Middleware that checks the API key of each request. Installed only if the service has keys."""

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.auth.api_keys import INFERENCE, METRICS, REPOSITORY, Keyring
from service.api.http.request_headers import header
from service.api.http.status_codes import LOG_FIELDS, error_response
from service.errors import ConvoyError

# Public: health checks, which orchestrators poll, and the pages, which contain no data and ask the user for the key.
PUBLIC_PATHS = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"}
PUBLIC_PREFIXES = ("/playground/", "/docs/")
REPOSITORY_PREFIX = "/v2/repository/models/"
BEARER_PREFIX = b"bearer "


class RequireApiKey:
    """Plain ASGI, inside RequestMiddleware. Paths without a rule of their own need the scope `inference`."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (key_scope := required_scope(get_route_path(scope))):
            try:
                scope[LOG_FIELDS]["key"] = self._keyring.authorize(_bearer_token(scope), key_scope)
            except ConvoyError as error:
                scope[LOG_FIELDS]["error"] = error.code
                await error_response(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def required_scope(path: str) -> str:
    """Returns the scope that a key needs for the path; empty if no key is needed."""
    if path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES):
        return ""
    if path == "/metrics":
        return METRICS
    return REPOSITORY if path.startswith(REPOSITORY_PREFIX) else INFERENCE


def _bearer_token(scope: Scope) -> bytes:
    value = header(scope, b"authorization")
    is_bearer = value[: len(BEARER_PREFIX)].lower() == BEARER_PREFIX
    return value[len(BEARER_PREFIX) :].strip() if is_bearer else b""
