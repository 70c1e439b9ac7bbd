"""Parts of OpenAPI entries that routes share: parameters, bodies that FastAPI does not read, headers, and errors.

The routes themselves are in the packages of the protocols. Parameters of their functions accept any value in FastAPI:
the endpoints check them, so that the fast router's answers are the same.
"""

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from service import errors
from service.api.http.status_codes import STATUS
from service.api.schemas import ErrorText
from service.imaging.decode import FORMATS

Json = dict[str, Any]
Responses = dict[int | str, Json]

REF = "#/components/schemas/"
IMAGE_FORMATS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} (first frame); recognized by its bytes."

ModelName = Annotated[str, Path(examples=["mnist-lenet5"])]
VersionName = Annotated[str, Path(description="Number, or label.", examples=["1"])]
VersionParameter = Annotated[
    str | SkipJsonSchema[None],
    Query(description="Number or label of the version. Default: the model's default version."),
]

TEXT: Json = {"type": "string"}
BINARY: Json = {"type": "string", "format": "binary"}
ANSWER_HEADERS: Json = {
    "Server-Timing": {
        "description": "Milliseconds of each stage, and the size of the batch that the request was part of.",
        "schema": TEXT,
    },
    "Model-Digest": {
        "description": "Identifies the content of the version that was used: 16 hexadecimal digits.",
        "schema": TEXT,
    },
}
# Errors of a request for predictions in any protocol.
PREDICTION_ERRORS = (
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


def error_responses(shape: type[BaseModel], *kinds: type[errors.ConvoyError]) -> Responses:
    """Returns FastAPI's `responses` for these errors: their statuses, each with its error codes."""
    codes: dict[int, list[str]] = {}
    for kind in kinds:
        codes.setdefault(STATUS[kind], []).append(f"`{kind.code}`")
    return {status: {"model": shape, "description": " or ".join(codes[status])} for status in sorted(codes)}


def unknown_model_responses() -> Responses:
    """Returns FastAPI's `responses` for a path of a foreign protocol that names a model or a version."""
    return error_responses(ErrorText, errors.UnknownModel, errors.UnknownVersion, errors.BrokenModel, errors.NotReady)


def prediction_responses(
    shape: type[BaseModel], error: type[errors.ConvoyError], description: str, **success: Json
) -> Responses:
    """Returns FastAPI's `responses` for predictions. `error` is the error of invalid parameters, `shape` the shape of
    all errors, and `success` adds to the entry of status 200."""
    answer: Json = {"description": description, "headers": ANSWER_HEADERS} | success
    return {200: answer, **error_responses(shape, error, *PREDICTION_ERRORS)}


def request_body(content: Json) -> Json:
    """Returns FastAPI's `openapi_extra` for a body of these content types, which the endpoint reads itself."""
    return {"requestBody": {"required": True, "content": content}}


def json_content(*shapes: type[BaseModel], examples: Json | None = None) -> Json:
    """Returns the content entry of a JSON body of one of these shapes."""
    refs = [{"$ref": REF + shape.__name__} for shape in shapes]
    content: Json = {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}
    return {"application/json": content | ({"examples": examples} if examples else {})}


def form_content(field: str, schema: Json) -> Json:
    """Returns the content entry of a form with one file, or with several."""
    form: Json = {"type": "object", "required": [field], "properties": {field: schema}}
    return {"multipart/form-data": {"schema": form}}


IMAGE_BODY = request_body(
    {"application/octet-stream": {"schema": BINARY}, "image/*": {"schema": BINARY}} | form_content("file", BINARY)
)
