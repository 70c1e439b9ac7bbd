"""Requests that a browser sends on behalf of a web page of another origin: CORS, CSRF and DNS rebinding.

A page may send a simple POST without a preflight request to any address that the browser can reach. CORS only prevents
the page from reading the response. Therefore the headers Sec-Fetch-Site and Origin of every POST are checked. Programs
send neither, and pages cannot change what browsers send.

In DNS rebinding, the page's host name is made to resolve to the address of the service, so that the page has the origin
of the service. Only the Host header distinguishes such a request. All of these checks apply with and without API keys.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.http.request_headers import header
from service.api.http.status_codes import handle_error
from service.errors import NotAllowed

HINT = "Send the request from a program, or add the page's origin to CONVOY_CORS_ORIGINS."
HOST_HINT = "Add the name to CONVOY_ALLOWED_HOSTS, or use the address of the service."
LOCAL_NAME = "localhost"
_PORT = re.compile(r":\d*\Z")
# Request headers that a page of another origin may send, and response headers that it may read, in addition to those
# that browsers always allow.
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
    """Returns the application wrapped in middleware that allows pages of these origins to use it."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=REQUEST_HEADERS,
        expose_headers=RESPONSE_HEADERS,
    )


class CsrfProtection:
    """ASGI middleware that rejects POST requests from web pages unless their origin is the service's own or in
    `allowed_origins`; `*` allows all."""

    def __init__(self, app: ASGIApp, allowed_origins: list[str]) -> None:
        self._app = app
        self._allowed_origins = {origin.lower() for origin in allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and not self._is_allowed(scope):
            error = NotAllowed("A web page of another origin may not use this service.", HINT)
            await handle_error(scope, error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        """Whether the request comes from an allowed origin, from the same origin, or not from a web page.

        Browsers send Sec-Fetch-Site only over TLS or to localhost. For the same origin, it takes precedence over the
        comparison of Origin with Host, because it is also correct behind a proxy that changes the Host header.
        """
        site, sent_origin = header(scope, b"sec-fetch-site"), header(scope, b"origin")
        if not site and not sent_origin:
            return True
        origin = sent_origin.decode("latin-1").lower()
        if not self._allowed_origins.isdisjoint({origin, "*"}):
            return True
        if site:
            return site in (b"same-origin", b"none")
        return _host(origin) == header(scope, b"host").decode("latin-1").lower()


def _host(origin: str) -> str:
    """Returns `host:port` as in the Host header; empty for an origin without a host, such as `null`."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


class HostCheck:
    """ASGI middleware that rejects requests whose Host header is not in `allowed_hosts`; `*.` allows subdomains.

    Addresses and localhost are always allowed: a page cannot make them resolve elsewhere, and probes of Kubernetes use
    addresses. Browsers always send a Host, so requests without one are allowed too.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: list[str]) -> None:
        self._app = app
        names = [name.lower() for name in allowed_hosts]
        self._names = {LOCAL_NAME, *(name for name in names if not name.startswith("*."))}
        self._suffixes = tuple(name.removeprefix("*") for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_allowed(header(scope, b"host").decode("latin-1")):
            error = NotAllowed("The Host header does not contain a name of this service.", HOST_HINT)
            await handle_error(scope, error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        name = _PORT.sub("", host).lower().removesuffix(".")
        return not host or name in self._names or name.endswith(self._suffixes) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
