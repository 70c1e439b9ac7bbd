"""What is served: the models, their versions, and where they came from."""

from fastapi import APIRouter

from service.api.native.explain_schemas import METHODS
from service.api.native.model_files import available_files
from service.api.schemas import ErrorReply, ModelDetails, ModelInput, ModelList, ModelSummary, ModelVersion
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Model, Registry
from service.model_store.manifest import Manifest


def model_routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api/v1/models", tags=["models"])

    @router.get("", summary="List the models")
    def list_models() -> ModelList:
        return ModelList(models=[_summary(loaded) for loaded in registry.models()])

    @router.get("/{model}", summary="Describe one model", responses={404: {"model": ErrorReply}})
    def describe(model: str) -> ModelDetails:
        loaded = registry.model(model)
        return ModelDetails(
            name=model,
            default_version=loaded.default.version,
            labels=list(loaded.default.labels),
            version_labels=loaded.labels,
            versions=[_version(served, loaded.default) for served in loaded.newest_first()],
        )

    return router


def _summary(loaded: Model) -> ModelSummary:
    default = loaded.default
    return ModelSummary(
        name=default.model,
        default_version=default.version,
        versions=[served.version for served in loaded.newest_first()],
        input=_input(default.manifest),
        classes=default.manifest.classes,
        test_accuracy=default.variant.test_accuracy,
    )


def _version(served: LoadedVersion, default: LoadedVersion) -> ModelVersion:
    manifest = served.manifest
    return ModelVersion(
        version=served.version,
        default=served is default,
        input=_input(manifest),
        preprocessing=manifest.preprocessing.model_dump(exclude_none=True),
        classes=manifest.classes,
        parameters=manifest.parameters,
        test_accuracy=served.variant.test_accuracy,
        metrics=manifest.metrics,
        documents=available_files(served.folder.path),
        explanations=[method for method in METHODS if method != "features" or served.feature_graph.is_available],
        provenance=manifest.provenance.model_dump(exclude_none=True),
        precision=served.variant.precision,
        provider=served.session.provider,
        threads=served.threads,
        instances=served.instances,
        max_batch_size=served.max_batch_size,
        batch_ms=served.batch_ms,
    )


def _input(manifest: Manifest) -> ModelInput:
    return ModelInput.model_validate(manifest.input, from_attributes=True)
