"""What a version's export wrote for people: its card, and the images in it."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Response

from service.api.openapi.error_responses import Json, described
from service.api.schemas import ErrorReply
from service.errors import BrokenVersion, NotReady, UnknownDocument, UnknownModel, UnknownVersion
from service.loaded_models.registry import Registry
from service.model_store.checksums import safe_path
from service.model_store.manifest import TEXT_LIMIT_BYTES

TYPES = {
    "card.md": "text/markdown; charset=utf-8",
    "confusion.png": "image/png",
    "curves.png": "image/png",
}


def document_routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api/v1/models", tags=["models"])
    found: Json = {"description": "The file.", "content": {media: {} for media in sorted(set(TYPES.values()))}}

    @router.get(
        "/{model}/versions/{version}/{document}",
        summary=f"Read a version's {', '.join(TYPES)}",
        response_class=Response,
        responses={200: found, **described(ErrorReply, UnknownModel, UnknownVersion, UnknownDocument, NotReady)},
    )
    async def document(model: str, version: str, document: str) -> Response:
        served = registry.get(model, version)
        data = await asyncio.to_thread(_read, served.folder.path, document)
        return Response(data, headers={"content-type": TYPES[document], "cache-control": "no-cache"})

    return router


def documents_of(folder: Path) -> list[str]:
    """Names of those that the version has."""
    return [name for name in TYPES if (folder / name).is_file()]


def _read(folder: Path, name: str) -> bytes:
    if name in TYPES:
        try:
            return safe_path(folder, name, TEXT_LIMIT_BYTES).read_bytes()
        except (OSError, BrokenVersion):
            pass
    raise UnknownDocument(f"The version has no '{name}'; documents are {', '.join(TYPES)}.")
