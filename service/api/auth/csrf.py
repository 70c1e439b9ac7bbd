"""Whether a browser sends a request for a web page of somebody else. Only what changes something asks; knows no keys.

A page may send a simple POST to any address that its reader's browser reaches, without asking first: CORS keeps it
from reading the answer alone. Programs send neither header, and browsers let no page choose them.
"""

from urllib.parse import urlsplit

from starlette.types import Scope

from service.api.http.body import header
from service.errors import NotAllowed

HINT = "Send it from a program, or name the page's origin in CONVOY_CORS_ORIGINS."


class Origins:
    """The origins, as CORS has them, whose pages may change something beside the service's own; `*` is all."""

    def __init__(self, allowed: list[str]) -> None:
        self._allowed = {origin.lower() for origin in allowed}

    def check(self, scope: Scope) -> None:
        """Raises NotAllowed."""
        origin = header(scope, b"origin").decode("latin-1").lower()
        if not self._allowed.isdisjoint({origin, "*"}):
            return
        own = header(scope, b"host").decode("latin-1").lower()
        if (origin and _host(origin) != own) or header(scope, b"sec-fetch-site") == b"cross-site":
            raise NotAllowed("A web page of another origin may not load or unload models here.", HINT)


def _host(origin: str) -> str:
    """`host:port` as the header Host writes it; nothing where there is none, as in the origin `null`."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
