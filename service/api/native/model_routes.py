"""GET /api/v1/models: the loaded models, their versions, and their provenance."""

from fastapi import APIRouter

from service.api.native.explain_schemas import METHODS
from service.api.native.model_files import available_files
from service.api.schemas import ErrorReply, ModelDetails, ModelInput, ModelList, ModelSummary, ModelVersion
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import LoadedModel, Registry
from service.model_store.manifest import Manifest


def model_routes(registry: Registry) -> APIRouter:
    router = APIRouter(prefix="/api/v1/models", tags=["models"])

    @router.get("", summary="List the models")
    def list_models() -> ModelList:
        return ModelList(models=[_summary(model) for model in registry.models()])

    @router.get("/{model}", summary="Describe one model", responses={404: {"model": ErrorReply}})
    def describe(model: str) -> ModelDetails:
        versions = registry.model(model)
        return ModelDetails(
            name=model,
            default_version=versions.default.version,
            labels=list(versions.default.labels),
            version_labels=versions.labels,
            versions=[_version(loaded, versions.default) for loaded in versions.newest_first()],
        )

    return router


def _summary(model: LoadedModel) -> ModelSummary:
    default = model.default
    return ModelSummary(
        name=default.model,
        default_version=default.version,
        versions=[loaded.version for loaded in model.newest_first()],
        input=_input(default.manifest),
        classes=default.manifest.classes,
        test_accuracy=default.variant.test_accuracy,
    )


def _version(loaded: LoadedVersion, default: LoadedVersion) -> ModelVersion:
    manifest = loaded.manifest
    return ModelVersion(
        version=loaded.version,
        digest=loaded.digest,
        default=loaded is default,
        input=_input(manifest),
        preprocessing=manifest.preprocessing.model_dump(exclude_none=True),
        classes=manifest.classes,
        activation=manifest.activation,
        parameters=manifest.parameters,
        test_accuracy=loaded.variant.test_accuracy,
        metrics=manifest.metrics,
        documents=available_files(loaded.folder.path),
        explanations=[method for method in METHODS if method != "features" or loaded.feature_graph.is_available],
        provenance=manifest.provenance.model_dump(exclude_none=True),
        precision=loaded.candidate.precision,
        engine=loaded.candidate.engine,
        hint=loaded.candidate.hint,
        engine_ms=loaded.engine_choice.times_ms,
        engine_failures=loaded.engine_choice.failures,
        provider=loaded.session.provider,
        devices=loaded.devices,
        nodes=loaded.session.nodes,
        threads=loaded.threads,
        instances=loaded.instances,
        max_batch_size=loaded.max_batch_size,
        batch_ms=loaded.batch_ms,
    )


def _input(manifest: Manifest) -> ModelInput:
    return ModelInput.model_validate(manifest.input, from_attributes=True)
