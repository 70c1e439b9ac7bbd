"""Status and metadata of models as in TensorFlow Serving's REST API, which KServe V1 shares."""

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor

from service.api.openapi.operations import unknown_model_responses
from service.api.v1.schemas import (
    Dimension,
    Metadata,
    ModelMetadata,
    ModelNames,
    ModelSpec,
    ModelStatus,
    Outcome,
    Signature,
    SignatureMap,
    TensorInfo,
    TensorShape,
    VersionState,
)
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Registry
from service.model_store.manifest import IMAGE, PROBABILITIES

NO_MODEL = unknown_model_responses()
MODEL, VERSION, LABEL = (
    "/models/{model:noun}",
    "/models/{model}/versions/{version:noun}",
    "/models/{model}/labels/{version:noun}",
)
PREDICT_METHOD = "tensorflow/serving/predict"
ANY_SIZE = -1


class _ModelName(Convertor[str]):
    """A path parameter without a colon: in `linear:predict` only `linear` is the name of a model."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("noun", _ModelName())


def model_status_routes(registry: Registry) -> APIRouter:
    """Returns the routes for models' status, as in TensorFlow Serving, and for the list of models, as in KServe."""
    router = APIRouter(prefix="/v1", tags=["TensorFlow Serving and KServe V1"])

    @router.get("/models", summary="Names of the models")
    async def names() -> ModelNames:
        return ModelNames(models=[versions[0].model for versions in registry.versions_by_model()])

    @router.get(MODEL, summary="Status of a model's versions", responses=NO_MODEL)
    @router.get(VERSION, summary="Status of one version", responses=NO_MODEL)
    @router.get(LABEL, summary="Status of a label's version", responses=NO_MODEL)
    async def status(model: str, version: str | None = None) -> ModelStatus:
        selected = registry.get(model, version)
        versions = [v for v in registry.model(model).newest_first() if version is None or v is selected]
        return ModelStatus(name=model, ready=True, model_version_status=[_state(loaded) for loaded in versions])

    @router.get(f"{MODEL}/metadata", summary="Metadata of a model", responses=NO_MODEL)
    @router.get(f"{VERSION}/metadata", summary="Metadata of one version", responses=NO_MODEL)
    @router.get(f"{LABEL}/metadata", summary="Metadata of a label's version", responses=NO_MODEL)
    async def metadata(model: str, version: str | None = None) -> ModelMetadata:
        return _metadata(registry.get(model, version))

    return router


def _state(loaded: LoadedVersion) -> VersionState:
    return VersionState(version=loaded.version, state="AVAILABLE", status=Outcome(error_code="OK", error_message=""))


def _metadata(loaded: LoadedVersion) -> ModelMetadata:
    manifest = loaded.manifest
    signature = Signature(
        inputs={IMAGE: _tensor(IMAGE, "DT_UINT8", [ANY_SIZE, *manifest.input.shape])},
        outputs={PROBABILITIES: _tensor(PROBABILITIES, "DT_FLOAT", [ANY_SIZE, manifest.classes])},
        method_name=PREDICT_METHOD,
    )
    return ModelMetadata(
        model_spec=ModelSpec(name=loaded.model, signature_name="", version=loaded.version),
        metadata=Metadata(signature_def=SignatureMap(signature_def={"serving_default": signature})),
    )


def _tensor(name: str, dtype: str, shape: list[int]) -> TensorInfo:
    """Returns the description of a tensor. 64-bit numbers are strings in the JSON of protocol buffers."""
    dimensions = [Dimension(size=str(size), name="") for size in shape]
    return TensorInfo(dtype=dtype, tensor_shape=TensorShape(dim=dimensions, unknown_rank=False), name=f"{name}:0")
