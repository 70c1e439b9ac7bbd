"""The endpoint `:predict` of TensorFlow Serving's REST API, which is also KServe V1."""

from typing import Any

from fastapi import APIRouter, Response
from starlette.types import Receive, Scope, Send

from service.api.fast_router import EndpointResponse
from service.api.http.body import BodyReader, estimate_tensor_count
from service.api.http.compression import compress_body
from service.api.http.disconnect import CancelOnDisconnect
from service.api.http.request_headers import apply_timeout_and_priority, is_background
from service.api.http.response_encoder import ResponseEncoder, outputs_bytes
from service.api.http.responses import JSON_HEADERS, send_response
from service.api.openapi.operations import ModelName, VersionName, json_content, prediction_responses, request_body
from service.api.schemas import ErrorText
from service.api.v1.request_parser import parse
from service.api.v1.response_encoder import encode, max_response_bytes
from service.api.v1.schemas import PREDICT_EXAMPLES, ColumnReply, PredictColumn, PredictRows, RowsReply
from service.classification.classifier import Classifier
from service.errors import BadTensor

DOCUMENTATION: dict[str, Any] = {
    "summary": "Images to probabilities or labels",
    "description": "Bodies may be compressed with gzip or deflate, and answers follow Accept-Encoding.",
    "response_model": RowsReply | ColumnReply,
    "responses": prediction_responses(ErrorText, BadTensor, "`predictions` for `instances`, `outputs` for `inputs`."),
    "openapi_extra": request_body(json_content(PredictRows, PredictColumn, examples=PREDICT_EXAMPLES)),
}


class Predict:
    """Answers :predict with `instances` or `inputs`. The images of all endpoints share the model's queue."""

    path = "/v1/models/{model}:predict"
    path_with_version = "/v1/models/{model}/versions/{version}:predict"
    path_with_label = "/v1/models/{model}/labels/{version}:predict"

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
        self._classifier.admit(params["model"], params.get("version"), background=is_background(scope))
        body = await self._body_reader.read(scope, receive)
        with self._classifier.context(params["model"], params.get("version")) as context:
            apply_timeout_and_priority(scope, context)
            loaded = context.loaded
            count = estimate_tensor_count(body, loaded.manifest.input.shape)
            self._classifier.admit(loaded.model, loaded.version, count, background=context.background)
            with CancelOnDisconnect(scope):
                request = await self._body_reader.parse_json(
                    scope, body, parse, body, loaded.manifest.input, self._max_images
                )
                del body  # is larger than the parsed request
                size_bytes = self._encoder.reserve(
                    scope, max_response_bytes(request, loaded), outputs_bytes(loaded, request.count)
                )
                rows = await self._classifier.infer_or_predict(context, request.tensor, request.images)
                reply = await self._encoder.encode(size_bytes, encode, request, rows, loaded.labels)
        reply_body, headers = await compress_body(scope, reply)
        await send_response(send, reply_body, context, JSON_HEADERS + headers)


def _routes(predict: Predict) -> APIRouter:
    """Returns the routes that FastAPI documents. The fast router calls the endpoint without them."""
    router = APIRouter(tags=["TensorFlow Serving and KServe V1"])

    @router.post(Predict.path, operation_id="predict", **DOCUMENTATION)
    async def predict_model(model: ModelName) -> Response:
        return EndpointResponse(predict)

    @router.post(Predict.path_with_label, operation_id="predict_label", **DOCUMENTATION)
    @router.post(Predict.path_with_version, operation_id="predict_version", **DOCUMENTATION)
    async def predict_version(model: ModelName, version: VersionName) -> Response:
        return EndpointResponse(predict)

    return router
