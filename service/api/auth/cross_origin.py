"""Requests that a browser sends on behalf of a web page of another origin: CORS, and protection against CSRF.

A page may send a simple POST to any address that the browser reaches, without a preflight request: CORS only keeps the
page from reading the response. Endpoints that change state therefore check the headers Origin and Sec-Fetch-Site.
Programs send neither header, and browsers let no page choose them. Knows no API keys.
"""

from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Scope

from service.api.http.request_headers import header
from service.errors import NotAllowed

HINT = "Send it from a program, or name the page's origin in CONVOY_CORS_ORIGINS."
# Headers that a page of another origin may send, and read in the response, beyond those that browsers always allow.
REQUEST_HEADERS = [
    "Authorization",
    "Content-Type",
    "Content-Encoding",
    "Inference-Header-Content-Length",
    "Priority",
    "X-Request-Id",
    "X-Request-Timeout-Ms",
    "Traceparent",
]
RESPONSE_HEADERS = [
    "Inference-Header-Content-Length",
    "Model-Digest",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Request-Id",
]


def allow_cors(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """Wraps the application so that pages of these origins may use it."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=REQUEST_HEADERS,
        expose_headers=RESPONSE_HEADERS,
    )


class CsrfProtection:
    """Rejects requests that come from pages of other origins than `allowed_origins`; `*` allows all."""

    def __init__(self, allowed_origins: list[str]) -> None:
        self._allowed_origins = {origin.lower() for origin in allowed_origins}

    def check(self, scope: Scope) -> None:
        """Raises NotAllowed."""
        origin = header(scope, b"origin").decode("latin-1").lower()
        if not self._allowed_origins.isdisjoint({origin, "*"}):
            return
        own_host = header(scope, b"host").decode("latin-1").lower()
        if (origin and _host(origin) != own_host) or header(scope, b"sec-fetch-site") == b"cross-site":
            raise NotAllowed("A web page of another origin may not load or unload models here.", HINT)


def _host(origin: str) -> str:
    """Returns `host:port` as the Host header writes it; empty where there is none, as in the origin `null`."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
