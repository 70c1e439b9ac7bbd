"""Endpoints of TensorFlow Serving's REST API, which is also KServe V1: predict, and the models' status."""

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Receive, Scope, Send

from service.api.http.body import estimate_tensor_count
from service.api.http.compression import compress_body, read_decompressed_body
from service.api.http.disconnect import CancelOnDisconnect
from service.api.http.request_headers import apply_timeout_and_priority
from service.api.http.responses import JSON_HEADERS, send_response
from service.api.openapi.error_responses import unknown_model_responses
from service.api.v1.request_parser import encode, parse
from service.api.v1.schemas import ModelNames, ModelStatus, Outcome, VersionState
from service.classification.classifier import Classifier
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Registry

NO_MODEL = unknown_model_responses()


class _ModelName(Convertor[str]):
    """A path parameter without a colon: in `linear:predict` only `linear` is the name of a model."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("noun", _ModelName())


class Predict:
    """POST :predict with `instances` or `inputs`; all images, of all endpoints, share one queue."""

    path = "/v1/models/{model}:predict"
    path_with_version = "/v1/models/{model}/versions/{version}:predict"
    path_with_label = "/v1/models/{model}/labels/{version}:predict"

    def __init__(self, classifier: Classifier, max_body_bytes: int, max_images: int) -> None:
        self._classifier = classifier
        self._max_body_bytes = max_body_bytes
        self._max_images = max_images

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        params = scope["path_params"]
        self._classifier.admit(params["model"], params.get("version"))
        body = await read_decompressed_body(scope, receive, self._max_body_bytes)
        with self._classifier.context(params["model"], params.get("version")) as context:
            apply_timeout_and_priority(scope, context)
            loaded = context.loaded
            self._classifier.admit(
                loaded.model, loaded.version, estimate_tensor_count(body, loaded.manifest.input.shape)
            )
            request = parse(body, loaded.manifest.input, self._max_images)
            with CancelOnDisconnect(scope):
                rows = await self._classifier.infer_or_predict(context, request.tensor, request.images)
            reply = encode(request, rows, loaded.labels)
        body, headers = await compress_body(scope, reply)
        await send_response(send, body, context, JSON_HEADERS + headers)


def model_status_routes(registry: Registry) -> APIRouter:
    """Returns the routes for models' status, as in TensorFlow Serving, and for the list of models, as in KServe."""
    router = APIRouter(prefix="/v1", tags=["TensorFlow Serving and KServe V1"])

    @router.get("/models", summary="Names of the models")
    async def names() -> ModelNames:
        return ModelNames(models=[versions[0].model for versions in registry.versions_by_model()])

    @router.get("/models/{model:noun}", summary="Status of a model's versions", responses=NO_MODEL)
    @router.get("/models/{model}/versions/{version:noun}", summary="Status of one version", responses=NO_MODEL)
    @router.get("/models/{model}/labels/{version:noun}", summary="Status of a label's version", responses=NO_MODEL)
    async def status(model: str, version: str | None = None) -> ModelStatus:
        selected = registry.get(model, version)
        versions = [v for v in registry.model(model).newest_first() if version is None or v is selected]
        return ModelStatus(model_version_status=[_state(loaded) for loaded in versions])

    return router


def _state(loaded: LoadedVersion) -> VersionState:
    return VersionState(version=loaded.version, state="AVAILABLE", status=Outcome(error_code="OK", error_message=""))
