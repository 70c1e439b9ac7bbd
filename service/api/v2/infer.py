"""The inference endpoint of the Open Inference Protocol V2: tensors or encoded images in, tensors out."""

import math
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import WithJsonSchema
from starlette.types import Receive, Scope, Send

from service.api.fast_router import EndpointResponse
from service.api.http.body import BodyReader, estimate_tensor_count
from service.api.http.compression import compress_body
from service.api.http.disconnect import CancelOnDisconnect
from service.api.http.request_headers import apply_timeout_and_priority, content_length, header, is_background
from service.api.http.response_encoder import ResponseEncoder, outputs_bytes
from service.api.http.responses import JSON_HEADERS, Headers, send_response
from service.api.openapi import operations
from service.api.openapi.operations import ModelName, VersionName, json_content
from service.api.schemas import ErrorText
from service.api.v2.request_parser import parse
from service.api.v2.response_encoder import EncodedResponse, encode, max_response_bytes
from service.api.v2.schemas import INFER_EXAMPLES, InferBody, InferReply
from service.classification.classifier import Classifier
from service.errors import BadTensor

JSON_LENGTH_HEADER = b"inference-header-content-length"
MAX_DIGITS = 18  # Python raises an error for numbers with thousands of digits
RAW_TENSOR = {"application/octet-stream": {"schema": operations.BINARY}}
BYTE_COUNT = {"type": "integer", "minimum": 0}
JsonLength = Annotated[
    str | None,
    Header(
        alias="Inference-Header-Content-Length",
        description="Bytes of JSON at the start of the body, if a raw tensor follows. 0: there is no JSON.",
    ),
    WithJsonSchema(BYTE_COUNT),
]
DOCUMENTATION: dict[str, Any] = {
    "summary": "Tensors or encoded images to probabilities or labels",
    "description": "Bodies may be compressed with gzip or deflate, and answers follow Accept-Encoding.",
    "response_model": InferReply,
    "responses": operations.prediction_responses(
        ErrorText,
        BadTensor,
        "The tensor in JSON, or as raw bytes after the JSON if the request asks for it.",
        headers=operations.ANSWER_HEADERS | {"Inference-Header-Content-Length": {"schema": BYTE_COUNT}},
        content=RAW_TENSOR,
    ),
    "openapi_extra": operations.request_body(json_content(InferBody, examples=INFER_EXAMPLES) | RAW_TENSOR),
}


class Infer:
    """Answers inference requests. The tensors and images of all endpoints share the model's queue."""

    path = "/v2/models/{model}/infer"
    path_with_version = "/v2/models/{model}/versions/{version}/infer"

    def __init__(
        self, classifier: Classifier, body_reader: BodyReader, encoder: ResponseEncoder, max_images: int
    ) -> None:
        self._classifier = classifier
        self._body_reader = body_reader
        self._encoder = encoder
        self._max_images = max_images
        self.router = _routes(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        params = scope["path_params"]
        # The priority in the body is not known yet.
        background = is_background(scope)
        loaded = self._classifier.admit(params["model"], params.get("version"), background=background)
        json_length = _json_length(scope)
        if json_length is not None:
            count = (content_length(scope) - json_length) // math.prod(loaded.manifest.input.shape)
            self._classifier.admit(loaded.model, loaded.version, count, background=background)
        body = await self._body_reader.read(scope, receive)
        with self._classifier.context(params["model"], params.get("version")) as context:
            loaded = context.loaded
            if json_length is None:
                count = estimate_tensor_count(body, loaded.manifest.input.shape)
                self._classifier.admit(loaded.model, loaded.version, count, background=background)
            apply_timeout_and_priority(scope, context)
            with CancelOnDisconnect(scope):
                request = await self._body_reader.parse_json(
                    scope, body, parse, body, json_length, loaded.manifest.input, self._max_images
                )
                context.limit_timeout(request.timeout_s)
                context.background = context.background or request.background
                del body  # is larger than the parsed request
                size_bytes = self._encoder.reserve(
                    scope, max_response_bytes(request, loaded), outputs_bytes(loaded, request.count)
                )
                rows = await self._classifier.infer_or_predict(context, request.tensor, request.images)
                reply = await self._encoder.encode(
                    size_bytes, encode, loaded.model, loaded.version, request, rows, loaded.labels
                )
        reply_body, headers = await compress_body(scope, reply.body)
        await send_response(send, reply_body, context, _content_headers(reply) + headers)


def _json_length(scope: Scope) -> int | None:
    value = header(scope, JSON_LENGTH_HEADER)
    if not value:
        return None
    if not value.isdigit() or len(value) > MAX_DIGITS:
        raise BadTensor("Inference-Header-Content-Length must be a whole number of bytes.")
    return int(value)


def _content_headers(reply: EncodedResponse) -> Headers:
    if reply.json_length is None:
        return JSON_HEADERS
    return [(b"content-type", b"application/octet-stream"), (JSON_LENGTH_HEADER, b"%d" % reply.json_length)]


def _routes(infer: Infer) -> APIRouter:
    """Returns the routes that FastAPI documents. The fast router calls the endpoint without them."""
    router = APIRouter(tags=["Open Inference Protocol V2"])

    @router.post(Infer.path, operation_id="infer", **DOCUMENTATION)
    async def infer_model(model: ModelName, json_length: JsonLength = None) -> Response:
        return EndpointResponse(infer)

    @router.post(Infer.path_with_version, operation_id="infer_version", **DOCUMENTATION)
    async def infer_version(model: ModelName, version: VersionName, json_length: JsonLength = None) -> Response:
        return EndpointResponse(infer)

    return router
