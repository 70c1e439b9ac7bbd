"""The short way to the endpoints that answer images and tensors: past FastAPI's telemetry, middleware and routes,
which cost a sixth of the processor time of a tiny image.
"""

import re
from collections.abc import Mapping

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.http.errors import answer_error
from service.errors import ConvoyError


class HotPaths:
    """Answers POSTs to `endpoints`, path templates as FastAPI writes them; `rest` answers everything else."""

    def __init__(self, endpoints: Mapping[str, ASGIApp], rest: ASGIApp) -> None:
        self._endpoints = [(_pattern(path), endpoint) for path, endpoint in endpoints.items()]
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = get_route_path(scope)
            for pattern, endpoint in self._endpoints:
                if (found := pattern.fullmatch(path)) is not None:
                    scope["path_params"] = found.groupdict()
                    scope["endpoint"] = endpoint
                    await _answer(endpoint, scope, receive, send)
                    return
        await self._rest(scope, receive, send)


async def _answer(endpoint: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        await endpoint(scope, receive, send)
    except ConvoyError as error:
        await answer_error(scope, error)(scope, receive, send)


def _pattern(path: str) -> re.Pattern[str]:
    """A template such as /v2/models/{model}/infer as a regular expression; a part in braces takes no slash."""
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile("".join(re.escape(p) if i % 2 == 0 else f"(?P<{p}>[^/]+)" for i, p in enumerate(parts)))
