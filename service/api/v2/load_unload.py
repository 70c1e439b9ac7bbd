"""Triton's model repository extension: lists the versions on disk, and loads and unloads models if clients may."""

from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError

from service.api.http.body import BodyReader
from service.api.http.json_fault import BYTE_ORDER_MARK, describe_fault
from service.api.openapi.operations import error_responses, json_content
from service.api.schemas import ErrorText
from service.api.v2.schemas import ChangeRequest, IndexEntry, IndexRequest, Nothing
from service.errors import (
    BadRequest,
    BadState,
    BodyTooLarge,
    MemoryFull,
    NotAllowed,
    NotEverywhere,
    UnknownModel,
    UnsupportedBody,
)
from service.loaded_models.registry import RepositoryEntry
from service.validation_messages import describe_first
from service.workers.group_operations import WorkerGroup

MAX_REPOSITORY_BODY_BYTES = 65536
HINT = "Send no body: models are loaded as they are on disk."
JSON_HINT = "Correct the JSON, or send no body."

BODY_ERRORS = (BadRequest, BodyTooLarge, UnsupportedBody, MemoryFull)
Body = TypeVar("Body", bound=BaseModel)
INDEX_OPTIONS: dict[str, Any] = {
    "responses": error_responses(ErrorText, *BODY_ERRORS),
    "openapi_extra": {"requestBody": {"content": json_content(IndexRequest)}},
}
CHANGE_OPTIONS: dict[str, Any] = {
    "responses": error_responses(ErrorText, *BODY_ERRORS, NotAllowed, UnknownModel, BadState, NotEverywhere),
    "openapi_extra": {"requestBody": {"content": json_content(ChangeRequest)}},
}


def repository_routes(worker_group: WorkerGroup, body_reader: BodyReader, changes_allowed: bool) -> APIRouter:
    """Returns the routes. Bodies are optional, and are read without FastAPI, because it does not limit their size."""
    router = APIRouter(prefix="/v2/repository", tags=["Open Inference Protocol V2"])

    @router.post("/index", summary="List every version on disk, and whether it is served", **INDEX_OPTIONS)
    async def index(request: Request) -> list[IndexEntry]:
        options = await _read_json(body_reader, request, IndexRequest)
        entries = [_to_schema(entry) for entry in await run_in_threadpool(worker_group.index)]
        return [entry for entry in entries if entry.state == "READY" or not options.ready]

    async def check_allowed(request: Request) -> None:
        """Raises NotAllowed, or BadRequest for parameters that would change the model on disk."""
        if not changes_allowed:
            raise NotAllowed("The configuration does not allow clients to load or unload models.")
        await _read_json(body_reader, request, ChangeRequest)

    @router.post("/models/{model}/load", summary="Load the desired versions of a model", **CHANGE_OPTIONS)
    async def load(model: str, request: Request) -> Nothing:
        await check_allowed(request)
        await worker_group.load(model)
        return Nothing()

    @router.post("/models/{model}/unload", summary="Take a model out of service", **CHANGE_OPTIONS)
    async def unload(model: str, request: Request) -> Nothing:
        await check_allowed(request)
        await worker_group.unload(model)
        return Nothing()

    return router


def _to_schema(entry: RepositoryEntry) -> IndexEntry:
    state: Literal["READY", "UNAVAILABLE"] = "READY" if entry.is_ready else "UNAVAILABLE"
    return IndexEntry(name=entry.model, version=entry.version, state=state, reason=entry.reason)


async def _read_json(body_reader: BodyReader, request: Request, schema: type[Body]) -> Body:
    body = await body_reader.read(request.scope, request.receive)
    try:
        return schema.model_validate_json(body.removeprefix(BYTE_ORDER_MARK) or b"{}")
    except ValidationError as error:
        errors = error.errors()
        if errors[0]["type"] == "json_invalid":
            raise BadRequest(f"The request is not valid JSON{describe_fault(body, {})}.", JSON_HINT) from None
        field, reason = describe_first(errors)
        raise BadRequest(f"{(field or 'the body')[:60]}: {reason}.", HINT) from None
