"""Serves Swagger UI at /docs from an installed package, without anything from other origins or inline scripts."""

from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from service.api.http.responses import CONTENT_SECURITY_POLICY

# The addresses are relative, so that they work under any root path, and behind a proxy that terminates TLS.
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
START_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
});
"""
# Swagger UI sets inline styles and uses images as data URLs.
ALLOW_INLINE_STYLES = {
    "content-security-policy": f"{CONTENT_SECURITY_POLICY.decode()}; style-src 'self' 'unsafe-inline'"
}
CACHE_ONE_HOUR = {"cache-control": "max-age=3600"}
MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def swagger_ui_routes() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def page() -> Response:
        return HTMLResponse(PAGE, headers=ALLOW_INLINE_STYLES)

    @router.get("/docs/start.js")
    async def start_script() -> Response:
        return Response(START_SCRIPT, media_type="text/javascript", headers=CACHE_ONE_HOUR)

    for name, media_type in MEDIA_TYPES.items():
        _add_static_file(router, name, media_type)
    return router


def _add_static_file(router: APIRouter, name: str, media_type: str) -> None:
    @router.get(f"/docs/{name}", name=name)
    def static_file() -> Response:
        content = files("fastapi_swagger.resources").joinpath(name).read_bytes()
        return Response(content, media_type=media_type, headers=CACHE_ONE_HOUR)
