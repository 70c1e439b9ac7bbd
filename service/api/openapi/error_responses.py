"""OpenAPI entries for errors, by the status codes of `STATUS`, and helpers for entries that FastAPI cannot generate."""

from typing import Any

from pydantic import BaseModel

from service import errors
from service.api.http.status_codes import STATUS
from service.api.schemas import ErrorText

Json = dict[str, Any]
ErrorTypes = tuple[type[errors.ConvoyError], ...]

REF = "#/components/schemas/"
# Errors of a request for predictions in any protocol.
PREDICTION_ERRORS: ErrorTypes = (
    errors.BadImage,
    errors.BadRequest,
    errors.UnknownModel,
    errors.UnknownVersion,
    errors.BodyTooLarge,
    errors.ImageTooLarge,
    errors.TooManyImages,
    errors.TooManyPixels,
    errors.UnsupportedImage,
    errors.UnsupportedBody,
    errors.QueueFull,
    errors.TooLateToStart,
    errors.ModelFailed,
    errors.MemoryFull,
    errors.OutOfMemory,
    errors.BrokenModel,
    errors.NotReady,
    errors.Draining,
    errors.ExpiredInQueue,
    errors.DeadlineTooShort,
    errors.DeadlineExceeded,
)


def fastapi_responses(shape: type[BaseModel], *kinds: type[errors.ConvoyError]) -> dict[int | str, Json]:
    """Returns FastAPI's `responses` for these errors: their statuses, each with its error codes."""
    return {status: {"model": shape, "description": codes} for status, codes in _codes_by_status(kinds).items()}


def unknown_model_responses() -> dict[int | str, Json]:
    """Returns FastAPI's `responses` for a path of a foreign protocol that names a model or a version."""
    return fastapi_responses(ErrorText, errors.UnknownModel, errors.UnknownVersion, errors.BrokenModel, errors.NotReady)


def error_responses(shape: type[BaseModel], kinds: ErrorTypes) -> Json:
    """Returns the same for an entry that FastAPI does not generate."""
    return {
        str(status): {"description": codes, "content": json_content(shape)}
        for status, codes in _codes_by_status(kinds).items()
    }


def json_content(*shapes: type[BaseModel], examples: Json | None = None) -> Json:
    """Returns the content entry of a JSON body of one of these shapes."""
    refs = [{"$ref": REF + shape.__name__} for shape in shapes]
    content: Json = {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}
    return {"application/json": content | ({"examples": examples} if examples else {})}


def _codes_by_status(kinds: ErrorTypes) -> dict[int, str]:
    codes: dict[int, list[str]] = {}
    for kind in kinds:
        codes.setdefault(STATUS[kind], []).append(f"`{kind.code}`")
    return {status: " or ".join(codes[status]) for status in sorted(codes)}
