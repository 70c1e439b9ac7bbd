"""What OpenAPI tells of errors, from the one table of status codes, and the small pieces of hand-written entries."""

from typing import Any

from pydantic import BaseModel

from service import errors
from service.api.http.errors import STATUS
from service.api.schemas import ErrorText

Json = dict[str, Any]
ErrorTypes = tuple[type[errors.ConvoyError], ...]

REF = "#/components/schemas/"
# What can become of a request for predictions, whatever the protocol.
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
    errors.Overloaded,
    errors.ModelFailed,
    errors.OutOfMemory,
    errors.NotReady,
    errors.Draining,
    errors.DeadlineExceeded,
)


def fastapi_responses(shape: type[BaseModel], *kinds: type[errors.ConvoyError]) -> dict[int | str, Json]:
    """For FastAPI's `responses`: the statuses of these errors, each with the codes that it may have."""
    return {status: {"model": shape, "description": codes} for status, codes in _codes_by_status(kinds).items()}


def unknown_model_responses() -> dict[int | str, Json]:
    """For FastAPI's `responses`: the errors of a path of the protocols of others that names a model or a version."""
    return fastapi_responses(ErrorText, errors.UnknownModel, errors.UnknownVersion, errors.NotReady)


def error_responses(shape: type[BaseModel], kinds: ErrorTypes) -> Json:
    """The same for an entry that is written by hand."""
    return {
        str(status): {"description": codes, "content": json_content(shape)}
        for status, codes in _codes_by_status(kinds).items()
    }


def json_content(*shapes: type[BaseModel], examples: Json | None = None) -> Json:
    """A JSON body of one of these shapes."""
    refs = [{"$ref": REF + shape.__name__} for shape in shapes]
    content: Json = {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}
    return {"application/json": content | ({"examples": examples} if examples else {})}


def _codes_by_status(kinds: ErrorTypes) -> dict[int, str]:
    codes: dict[int, list[str]] = {}
    for kind in kinds:
        codes.setdefault(STATUS[kind], []).append(f"`{kind.code}`")
    return {status: " or ".join(codes[status]) for status in sorted(codes)}
