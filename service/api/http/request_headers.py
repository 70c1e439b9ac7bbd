"""Reads request headers from the ASGI scope, and applies the two that set a request's deadline and priority."""

import functools
import re
from ipaddress import AddressValueError, IPv6Address

from starlette.types import Scope

from service.api.http.status_codes import LOG_FIELDS
from service.classification.request_context import RequestContext
from service.errors import BadParameter

REQUEST_CONTEXT = "convoy.request_context"
"""Key in the ASGI scope for the request's RequestContext, which its log line and its trace use."""
HEADERS_BY_NAME = "convoy.headers_by_name"

TIMEOUT = b"x-request-timeout-ms"
MAX_TIMEOUT_DIGITS = 9
PRIORITY = b"priority"
MAX_CACHED_NETWORKS = 4096
BACKGROUND = re.compile(rb"(?:^|[,\s])u=7\b")


def header(scope: Scope, name: bytes) -> bytes:
    """Returns the first header with this lower-case name, or an empty value."""
    if HEADERS_BY_NAME not in scope:
        scope[HEADERS_BY_NAME] = dict(reversed(scope["headers"]))  # once, because a request reads about six headers
    value: bytes = scope[HEADERS_BY_NAME].get(name, b"")
    return value


def content_length(scope: Scope) -> int:
    """Returns the Content-Length, which the server has validated, or 0 without one."""
    return int(header(scope, b"content-length") or 0)


def client_name(scope: Scope) -> str:
    """Returns the sender of the request: the name of its API key, or its address if the service has no keys.

    All IPv6 addresses of one /64 network are one client, because a single host may use them all.
    """
    address = scope["client"]
    return scope[LOG_FIELDS].get("key") or (network_of(address[0]) if address else "")


@functools.lru_cache(MAX_CACHED_NETWORKS)
def network_of(address: str) -> str:
    """Returns the /64 network of an IPv6 address; other addresses unchanged."""
    try:
        ipv6 = IPv6Address(address)
    except AddressValueError:
        return address
    if ipv6.ipv4_mapped is not None:
        return str(ipv6.ipv4_mapped)
    return f"{IPv6Address(int(ipv6) >> 64 << 64)}/64"


def apply_timeout_and_priority(scope: Scope, context: RequestContext) -> None:
    """Limits the context's timeout to X-Request-Timeout-Ms, and marks requests with `Priority: u=7` as background work.

    Also stores the context in the scope, and the client in the context. RFC 9218 reserves urgency 7 for background
    tasks. Browsers send the other values. Raises BadParameter.
    """
    scope[REQUEST_CONTEXT] = context
    context.client = client_name(scope)
    if timeout := header(scope, TIMEOUT):
        if not timeout.isdigit() or not 0 < len(timeout) <= MAX_TIMEOUT_DIGITS or not int(timeout):
            raise BadParameter("X-Request-Timeout-Ms must be a whole number of milliseconds, at least 1.")
        context.limit_timeout(int(timeout) / 1000)
    context.background = is_background(scope)


def is_background(scope: Scope) -> bool:
    """Whether the header Priority marks the request as background work."""
    return BACKGROUND.search(header(scope, PRIORITY)) is not None
