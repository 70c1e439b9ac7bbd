"""The page for people who look: static files, nothing built and nothing from elsewhere. Knows no model."""

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).resolve().parent / "static"
PREFIX = "/playground"
REVALIDATE = {"cache-control": "no-cache"}


class _Files(StaticFiles):
    """Asked for anew each time, by their ETag: after an upgrade the page and its parts must go together."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(REVALIDATE)
        return response


def playground_routes() -> list[BaseRoute]:
    files = _Files(directory=STATIC)

    # Not a Mount: behind a proxy that strips the root path, Starlette's would look for the files in the wrong place.
    async def part(request: Request) -> Response:
        return await files.get_response(request.path_params["name"], request.scope)

    return [Route("/", _page, methods=["GET"]), Route(f"{PREFIX}/{{name}}", part, methods=["GET"])]


async def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers=REVALIDATE)
