"""POST .../classify and .../classify/batch: one image, or many, to their labels.

Plain ASGI callables: FastAPI's own routing would halve the throughput of tiny images.
"""

from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from service.api.http.body import BodyReader, estimate_image_count
from service.api.http.disconnect import CancelOnDisconnect
from service.api.http.form import MULTIPART, parse_form_files
from service.api.http.request_headers import apply_timeout_and_priority, header
from service.api.http.responses import JSON_HEADERS, json_bytes, send_response
from service.api.http.status_codes import error_json, log_model_failure
from service.api.native import batch_request
from service.classification.classifier import Classifier
from service.classification.top_k import Probabilities, select_predictions
from service.errors import BadParameter, ConvoyError, UnsupportedBody
from service.loaded_models.loaded_version import LoadedVersion


class Classify:
    """POST one image: the raw body, or the file of a multipart form."""

    path = "/api/v1/models/{model}/classify"

    def __init__(self, classifier: Classifier, body_reader: BodyReader) -> None:
        self._classifier = classifier
        self._body_reader = body_reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version, k = parse_query(scope)
        self._classifier.admit(scope["path_params"]["model"], version)
        image = await self._body_reader.read_image(scope, receive)
        with self._classifier.context(scope["path_params"]["model"], version) as context:
            apply_timeout_and_priority(scope, context)
            with CancelOnDisconnect(scope):
                row = await self._classifier.predict(context, image)
            body = json_bytes(_model_fields(context.loaded) | _predictions_json(row, context.loaded, k))
        await send_response(send, body, context, JSON_HEADERS)


class ClassifyBatch:
    """POST many images: the files of a multipart form, or JSON with base64."""

    path = "/api/v1/models/{model}/classify/batch"

    def __init__(self, classifier: Classifier, body_reader: BodyReader, max_images: int) -> None:
        self._classifier = classifier
        self._body_reader = body_reader
        self._max_images = max_images

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version, k = parse_query(scope)
        self._classifier.admit(scope["path_params"]["model"], version)
        body = await self._body_reader.read(scope, receive)
        content_type = header(scope, b"content-type")
        count = await self._body_reader.parse(body, estimate_image_count, content_type, body)
        self._classifier.admit(scope["path_params"]["model"], version, count)
        images = await self._parse_images(content_type, body)
        del body  # as large as the images
        with self._classifier.context(scope["path_params"]["model"], version) as context:
            apply_timeout_and_priority(scope, context)
            with CancelOnDisconnect(scope):
                rows = await self._classifier.predict_many(context, [data for _, data in images])
            log_model_failure(scope, rows)
            loaded = context.loaded
            results = [_result_json(name, row, loaded, k) for (name, _), row in zip(images, rows, strict=True)]
            reply = json_bytes(_model_fields(loaded) | {"results": results})
        await send_response(send, reply, context, JSON_HEADERS)

    async def _parse_images(self, content_type: bytes, body: bytes) -> list[tuple[str | None, bytes | ConvoyError]]:
        if content_type.startswith(MULTIPART):
            parsed = self._body_reader.parse(body, parse_form_files, content_type, body, "files", self._max_images)
            return list(await parsed)
        if content_type.startswith(b"application/json"):
            return await self._body_reader.parse_json(body, batch_request.parse, body, self._max_images)
        raise UnsupportedBody(f"A batch cannot be sent as '{content_type.decode('latin-1')}'.")


def parse_query(scope: Scope) -> tuple[str | None, int | None]:
    """Returns `version` and `top_k` of the query. Raises BadParameter for other names or invalid values."""
    if not scope["query_string"]:
        return None, None
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    version, k = query.pop("version", None), query.pop("top_k", None)
    if query:
        raise BadParameter(f"There is no parameter '{next(iter(query))}'; there are 'top_k' and 'version'.")
    if k is None:
        return version, None
    if not (k.isascii() and k.isdigit() and int(k[:9]) >= 1 and len(k) <= 9):
        raise BadParameter(f"top_k is '{k}'; it must be a whole number from 1.")
    return version, int(k)


def _model_fields(loaded: LoadedVersion) -> dict[str, Any]:
    return {"model": loaded.model, "version": loaded.version}


def _predictions_json(row: Probabilities, loaded: LoadedVersion, k: int | None) -> dict[str, Any]:
    return {"predictions": select_predictions(row, loaded.labels, k, loaded.manifest.activation)}


def _result_json(
    name: str | None, row: Probabilities | ConvoyError, loaded: LoadedVersion, k: int | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {} if name is None else {"id": name}
    if isinstance(row, ConvoyError):
        return entry | {"error": error_json(row)}
    return entry | _predictions_json(row, loaded, k)
