"""ASGI scopes of requests without a server."""

import itertools
from collections.abc import Iterable

from starlette.types import Scope

from service.api.http.status_codes import LOG_FIELDS

_numbers = itertools.count()


def request_scope(client: str | None = None, headers: Iterable[tuple[bytes, bytes]] = ()) -> Scope:
    """Returns the scope of a POST request of the client, by default of a new client."""
    address = (client or f"client {next(_numbers)}", 1)
    request = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": list(headers)}
    return request | {"client": address, LOG_FIELDS: {}}
