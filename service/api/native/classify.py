"""POST .../classify classifies one image, and POST .../classify/batch classifies many.

The endpoints are plain ASGI callables, because FastAPI's layers cost too much for small requests: see `fast_router`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import WithJsonSchema
from starlette.types import Receive, Scope, Send

from service.api.fast_router import EndpointResponse
from service.api.http.body import BodyReader, estimate_image_count
from service.api.http.disconnect import CancelOnDisconnect
from service.api.http.form import Fields, Form, is_form, media_type, parse_form
from service.api.http.parameters import add_form_fields, query_parameters
from service.api.http.request_headers import apply_timeout_and_priority, header, is_background
from service.api.http.response_encoder import (
    ResponseEncoder,
    join,
    json_items,
    outputs_bytes,
    predictions_bytes,
    row_slices,
)
from service.api.http.responses import JSON_HEADERS, Body, json_bytes, send_response
from service.api.http.status_codes import error_json, log_model_failure
from service.api.native import batch_request
from service.api.openapi import operations
from service.api.openapi.operations import IMAGE_FORMATS, ModelName, VersionParameter, json_content
from service.api.schemas import BATCH_EXAMPLES, BatchReply, BatchRequest, ClassifyReply, ErrorReply
from service.classification.classifier import Classifier
from service.classification.top_k import DEFAULT_TOP_K, Probabilities, count_likely, select_predictions
from service.errors import BadParameter, ConvoyError, UnknownVersion, UnsupportedBody
from service.loaded_models.loaded_version import LoadedVersion
from service.model_store.manifest import MIN_LIKELY_PROBABILITY

PARAMETERS = ("top_k", "version")
TopK = Annotated[
    str | None,
    Query(
        description=f"Number of classes, most probable first. Default: {DEFAULT_TOP_K}, or for a model whose "
        f"`activation` is `sigmoid`, all labels with a probability above {MIN_LIKELY_PROBABILITY}."
    ),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 999_999_999}),
]
RESPONSES = operations.prediction_responses(ErrorReply, BadParameter, "The labels.")


class Classify:
    """Classifies one image: the raw body, or the file of a multipart form."""

    path = "/api/v1/models/{model}/classify"

    def __init__(self, classifier: Classifier, body_reader: BodyReader, encoder: ResponseEncoder) -> None:
        self._classifier = classifier
        self._body_reader = body_reader
        self._encoder = encoder
        self.router = _routes(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = query_parameters(scope, PARAMETERS)
        version, k = parse_parameters(query)
        _admit(self._classifier, scope, version)
        image, fields = await self._body_reader.read_image(scope, receive)
        if fields:
            version, k = parse_parameters(add_form_fields(query, fields, PARAMETERS))
        with self._classifier.context(scope["path_params"]["model"], version) as context:
            apply_timeout_and_priority(scope, context)
            loaded = context.loaded
            with CancelOnDisconnect(scope):
                size_bytes = self._encoder.reserve(scope, predictions_bytes(loaded, 1, _known_count(k)))
                row = await self._classifier.predict(context, image)
                if has_unknown_count(loaded, k):
                    size_bytes = self._encoder.reserve(scope, likely_bytes(loaded, [row]))
                body = await self._encoder.encode(size_bytes, _encode, row, loaded, k)
        await send_response(send, body, context, JSON_HEADERS)


class ClassifyBatch:
    """Classifies many images: the files of a multipart form, or JSON with base64."""

    path = "/api/v1/models/{model}/classify/batch"

    def __init__(
        self, classifier: Classifier, body_reader: BodyReader, encoder: ResponseEncoder, max_images: int
    ) -> None:
        self._classifier = classifier
        self._body_reader = body_reader
        self._encoder = encoder
        self._max_images = max_images
        self.router = _batch_routes(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = query_parameters(scope, PARAMETERS)
        version, k = parse_parameters(query)
        _admit(self._classifier, scope, version)
        body = await self._body_reader.read(scope, receive)
        content_type = header(scope, b"content-type")
        with CancelOnDisconnect(scope):
            count = await self._body_reader.parse(scope, body, estimate_image_count, content_type, body)
            _admit(self._classifier, scope, version, count)
            images, fields = await self._parse_images(scope, content_type, body)
        if fields:
            version, k = parse_parameters(add_form_fields(query, fields, PARAMETERS))
        del body  # as large as the images
        with self._classifier.context(scope["path_params"]["model"], version) as context:
            apply_timeout_and_priority(scope, context)
            loaded = context.loaded
            with CancelOnDisconnect(scope):
                size_bytes = self._encoder.reserve(
                    scope, predictions_bytes(loaded, len(images), _known_count(k)), outputs_bytes(loaded, len(images))
                )
                rows = await self._classifier.predict_many(context, [data for _, data in images])
                log_model_failure(scope, rows)
                if has_unknown_count(loaded, k):
                    size_bytes = self._encoder.reserve(scope, likely_bytes(loaded, rows))
                names = [name for name, _ in images]
                reply = await self._encoder.encode(size_bytes, _encode_batch, names, rows, loaded, k)
        await send_response(send, reply, context, JSON_HEADERS)

    async def _parse_images(
        self, scope: Scope, content_type: bytes, body: bytes
    ) -> tuple[batch_request.Images, Fields]:
        """Returns the images, and the text fields of a form."""
        if is_form(content_type):
            parsed = self._body_reader.parse(scope, body, parse_form, content_type, body, "files", self._max_images)
            form: Form = await parsed
            return list(form.files), form.fields
        if media_type(content_type) == b"application/json":
            return await self._body_reader.parse_json(scope, body, batch_request.parse, body, self._max_images), []
        raise UnsupportedBody(f"A batch cannot be sent as '{content_type.decode('latin-1')}'.")


def _routes(classify: Classify) -> APIRouter:
    """Returns the route that FastAPI documents. The fast router calls the endpoint without it."""
    router = APIRouter(tags=["classification"])

    @router.post(
        Classify.path,
        operation_id="classify",
        summary="Classify one image",
        description=f"The image is the body, or the one file of a form. {IMAGE_FORMATS}",
        response_model=ClassifyReply,
        responses=RESPONSES,
        openapi_extra=operations.IMAGE_BODY,
    )
    async def classify_one(model: ModelName, top_k: TopK = None, version: VersionParameter = None) -> Response:
        return EndpointResponse(classify)

    return router


def _batch_routes(classify_batch: ClassifyBatch) -> APIRouter:
    """Does the same for a batch."""
    router = APIRouter(tags=["classification"])
    files = operations.form_content("files", {"type": "array", "minItems": 1, "items": operations.BINARY})

    @router.post(
        ClassifyBatch.path,
        operation_id="classify_batch",
        summary="Classify many images",
        description=f"Results are in the order of the images. A broken image fails alone. {IMAGE_FORMATS}",
        response_model=BatchReply,
        responses=RESPONSES,
        openapi_extra=operations.request_body(files | json_content(BatchRequest, examples=BATCH_EXAMPLES)),
    )
    async def classify_many(model: ModelName, top_k: TopK = None, version: VersionParameter = None) -> Response:
        return EndpointResponse(classify_batch)

    return router


def _admit(classifier: Classifier, scope: Scope, version: str | None, count: int = 1) -> None:
    """Rejects a request that is certain to fail. Ignores an unknown version if the body is a form. The form is not
    parsed yet, and a version in its fields that differs from the query is reported as a conflict."""
    try:
        classifier.admit(scope["path_params"]["model"], version, count, background=is_background(scope))
    except UnknownVersion:
        if not is_form(header(scope, b"content-type")):
            raise


def parse_parameters(parameters: Mapping[str, str]) -> tuple[str | None, int | None]:
    """Returns `version` and `top_k`. Raises BadParameter for invalid values."""
    version, k = parameters.get("version"), parameters.get("top_k")
    if k is None:
        return version, None
    if not (k.isascii() and k.isdigit() and int(k[:9]) >= 1 and len(k) <= 9):
        raise BadParameter(f"top_k is '{k}'; it must be a whole number from 1 to 999999999.")
    return version, int(k)


def _model_fields(loaded: LoadedVersion) -> dict[str, Any]:
    return {"model": loaded.model, "version": loaded.version}


def _known_count(k: int | None) -> int:
    """Returns the number of classes per image for which space is reserved before the model runs. For a sigmoid model
    without `top_k`, the real number is known only afterwards."""
    return DEFAULT_TOP_K if k is None else k


def has_unknown_count(loaded: LoadedVersion, k: int | None) -> bool:
    """Whether the number of classes per image depends on the model's outputs."""
    return k is None and loaded.manifest.activation == "sigmoid"


def likely_bytes(loaded: LoadedVersion, rows: Sequence[Probabilities | ConvoyError]) -> int:
    """Returns the maximum size of a response with all likely classes of each image."""
    counts = (count_likely(row) for row in rows if not isinstance(row, ConvoyError))
    return sum(predictions_bytes(loaded, 1, count) for count in counts)


def _encode(row: Probabilities, loaded: LoadedVersion, k: int | None) -> bytes:
    return json_bytes(_model_fields(loaded) | _predictions_json(row, loaded, k))


def _encode_batch(
    names: Sequence[str | None], rows: Sequence[Probabilities | ConvoyError], loaded: LoadedVersion, k: int | None
) -> Body:
    prefix = json_bytes(_model_fields(loaded))[:-1] + b',"results":['
    entries = list(zip(names, rows, strict=True))
    parts = (entries[part] for part in row_slices(len(entries), _known_count(k)))
    return join(prefix, (json_items([_result_json(*entry, loaded, k) for entry in part]) for part in parts), b"]}")


def _predictions_json(row: Probabilities, loaded: LoadedVersion, k: int | None) -> dict[str, Any]:
    return {"predictions": select_predictions(row, loaded.labels, k, loaded.manifest.activation)}


def _result_json(
    name: str | None, row: Probabilities | ConvoyError, loaded: LoadedVersion, k: int | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {} if name is None else {"id": name}
    if isinstance(row, ConvoyError):
        return entry | {"error": error_json(row)}
    return entry | _predictions_json(row, loaded, k)
