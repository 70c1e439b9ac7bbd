"""Serves the human-readable files of a version: the model card and its plots."""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Response

from service.api.openapi.operations import Json, error_responses
from service.api.schemas import ErrorReply
from service.errors import BrokenVersion, NotReady, UnknownDocument, UnknownModel, UnknownVersion
from service.loaded_models.registry import Registry
from service.model_store.checksums import safe_path
from service.model_store.manifest import MAX_TEXT_BYTES

MEDIA_TYPES = {
    "card.md": "text/markdown; charset=utf-8",
    "confusion.png": "image/png",
    "curves.png": "image/png",
}


def model_file_routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api/v1/models", tags=["models"])
    content: Json = {media_type: {} for media_type in sorted(set(MEDIA_TYPES.values()))}

    @router.get(
        "/{model}/versions/{version}/{document}",
        summary="Read a version's card or one of its plots",
        response_class=Response,
        responses={
            200: {"description": "The file.", "content": content},
            **error_responses(ErrorReply, UnknownModel, UnknownVersion, UnknownDocument, NotReady),
        },
    )
    async def document(model: str, version: str, document: str) -> Response:
        loaded = registry.get(model, version)
        data = await asyncio.to_thread(_read, loaded.folder.path, document)
        return Response(data, headers={"content-type": MEDIA_TYPES[document], "cache-control": "no-cache"})

    return router


def available_files(folder: Path) -> list[str]:
    """Returns the names in MEDIA_TYPES that exist in the version folder."""
    return [name for name in MEDIA_TYPES if (folder / name).is_file()]


def _read(folder: Path, name: str) -> bytes:
    if name in MEDIA_TYPES:
        try:
            return safe_path(folder, name, MAX_TEXT_BYTES).read_bytes()
        except (OSError, BrokenVersion):
            pass
    raise UnknownDocument(f"The version has no '{name}'; the documents are {', '.join(MEDIA_TYPES)}.")
