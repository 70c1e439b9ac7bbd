"""Serves the playground: static files, without a build step and without anything from other origins.

Independent of the models: the page's scripts, in `static/`, use the public API like any other client.
"""

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).resolve().parent / "static"
PREFIX = "/playground"
REVALIDATE = {"cache-control": "no-cache"}
VARY = {"vary": "accept"}


class _RevalidatedFiles(StaticFiles):
    """Serves files that browsers revalidate by ETag each time, so that the page and its scripts match after an
    upgrade."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(REVALIDATE)
        return response


def playground_routes() -> list[BaseRoute]:
    """Returns the routes of the page at / for clients that accept HTML, and of its files under /playground/."""
    files = _RevalidatedFiles(directory=STATIC)

    # Not a Mount: behind a proxy that strips the root path, Starlette's Mount searches for files in the wrong place.
    async def static_file(request: Request) -> Response:
        return await files.get_response(request.path_params["name"], request.scope)

    return [Route("/", _page, methods=["GET"]), Route(f"{PREFIX}/{{name}}", static_file, methods=["GET"])]


async def _page(request: Request) -> Response:
    """Returns the page to browsers. Programs, such as KServe's client, get the status of the service."""
    if "text/html" in request.headers.get("accept", "").lower():
        return FileResponse(STATIC / "index.html", headers=REVALIDATE | VARY)
    return JSONResponse({"status": "alive", "name": "convoy", "docs": "docs"}, headers=VARY)
