"""The page at /docs: Swagger UI from an installed package, with nothing loaded from elsewhere and no inline script."""

from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from service.api.http.responses import CONTENT_SECURITY_POLICY

# Addresses are relative: they hold under any root path, and behind a proxy that ends TLS.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Convoy</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
});
"""
# Swagger UI sets styles on its elements, and shows images of its own as data.
STYLED = {"content-security-policy": f"{CONTENT_SECURITY_POLICY.decode()}; style-src 'self' 'unsafe-inline'"}
UNCHANGING = {"cache-control": "max-age=3600"}
KINDS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def docs_routes() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def page() -> Response:
        return HTMLResponse(PAGE, headers=STYLED)

    @router.get("/docs/start.js")
    async def start() -> Response:
        return Response(START, media_type="text/javascript", headers=UNCHANGING)

    for name, kind in KINDS.items():
        _add(router, name, kind)
    return router


def _add(router: APIRouter, name: str, kind: str) -> None:
    @router.get(f"/docs/{name}", name=name)
    def part() -> Response:
        content = files("fastapi_swagger.resources").joinpath(name).read_bytes()
        return Response(content, media_type=kind, headers=UNCHANGING)
