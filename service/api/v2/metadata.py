"""Open Inference Protocol V2 except inference: health, metadata, and Triton's configuration and statistics."""

import itertools
from importlib.metadata import version as version_of

from fastapi import APIRouter

from service.api.health_and_metrics import check_live
from service.api.openapi.operations import error_responses, unknown_model_responses
from service.api.schemas import ErrorText
from service.api.v2.request_parser import PIXELS
from service.api.v2.schemas import (
    BatchStatistics,
    ConfigInput,
    ConfigOutput,
    Duration,
    DynamicBatching,
    InferStatistics,
    InstanceGroup,
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    Ready,
    Server,
    TensorKind,
    VersionStatistics,
)
from service.errors import Draining, ModelHung, NotReady
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Registry
from service.model_store.manifest import IMAGE, PROBABILITIES
from service.observability.multiprocess import StatsByVersion, version_key
from service.observability.version_stats import DurationTotal, VersionStats
from service.workers.group_operations import WorkerGroup
from service.workers.shutdown import ShutdownState

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
MODEL = "/models/{model}"
VERSION = "/models/{model}/versions/{version}"
PLATFORM = "onnxruntime_onnx"
NO_MODEL = unknown_model_responses()


def metadata_routes(
    registry: Registry, worker_group: WorkerGroup, shutdown_state: ShutdownState, max_delay_ms: float
) -> APIRouter:
    """Returns all routes under /v2 except inference and the repository."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol V2"])
    _add_health(router, registry, worker_group, shutdown_state)
    _add_statistics(
        router, registry, worker_group
    )  # before the models' routes, because "stats" is not the name of a model
    _add_metadata(router, registry, max_delay_ms)
    return router


def _add_health(
    router: APIRouter, registry: Registry, worker_group: WorkerGroup, shutdown_state: ShutdownState
) -> None:
    @router.get(
        "/health/live",
        summary="Whether the process responds and no model is stuck",
        responses=error_responses(ErrorText, ModelHung),
    )
    async def server_live() -> Live:
        check_live(worker_group)
        return Live(live=True)

    @router.get("/health/ready", summary="Whether every model is warm", responses=error_responses(ErrorText, NotReady))
    async def server_ready() -> Ready:
        if shutdown_state.is_draining or worker_group.is_stopping:
            raise Draining("The service is shutting down.")
        if reasons := worker_group.not_ready_reasons():
            raise NotReady(f"Not ready: {'; '.join(f'{name}: {reason}' for name, reason in reasons.items())}")
        return Ready(ready=True)

    @router.get(MODEL + "/ready", summary="Whether a model is warm", responses=NO_MODEL)
    @router.get(VERSION + "/ready", summary="Whether a version is warm", responses=NO_MODEL)
    async def model_ready(model: str, version: str | None = None) -> ModelReady:
        registry.get(model, version)
        return ModelReady(name=model, ready=True)


def _add_metadata(router: APIRouter, registry: Registry, max_delay_ms: float) -> None:
    @router.get("", summary="Server metadata")
    @router.get("/", include_in_schema=False)
    async def server_metadata() -> Server:
        return Server(name="convoy", version=version_of("convoy"), extensions=EXTENSIONS)

    @router.get(MODEL, summary="Model metadata", responses=NO_MODEL)
    @router.get(VERSION, summary="Version metadata", responses=NO_MODEL)
    async def metadata(model: str, version: str | None = None) -> ModelMetadata:
        return _metadata(registry.get(model, version), registry)

    @router.get(MODEL + "/config", summary="Model configuration", responses=NO_MODEL)
    @router.get(VERSION + "/config", summary="Version configuration", responses=NO_MODEL)
    async def config(model: str, version: str | None = None) -> ModelConfig:
        return _config(registry.get(model, version), max_delay_ms)


def _add_statistics(router: APIRouter, registry: Registry, worker_group: WorkerGroup) -> None:
    @router.get("/models/stats", summary="Statistics of all models")
    async def all_statistics() -> ModelStatistics:
        totals = await worker_group.statistics()
        versions = itertools.chain.from_iterable(registry.versions_by_model())
        return ModelStatistics(model_stats=[_version_statistics(version, totals) for version in versions])

    @router.get(MODEL + "/stats", summary="Statistics of a model", responses=NO_MODEL)
    @router.get(VERSION + "/stats", summary="Statistics of a version", responses=NO_MODEL)
    async def statistics(model: str, version: str | None = None) -> ModelStatistics:
        selected = registry.get(model, version)
        totals = await worker_group.statistics()
        versions = [v for v in registry.model(model).newest_first() if version is None or v is selected]
        return ModelStatistics(model_stats=[_version_statistics(loaded, totals) for loaded in versions])


def _metadata(loaded: LoadedVersion, registry: Registry) -> ModelMetadata:
    versions = registry.model(loaded.model).newest_first()
    return ModelMetadata(
        name=loaded.model,
        versions=[version.version for version in reversed(versions)],
        platform=PLATFORM,
        inputs=[TensorKind(name=IMAGE, datatype=PIXELS, shape=[-1, *loaded.manifest.input.shape])],
        outputs=[TensorKind(name=PROBABILITIES, datatype="FP32", shape=[-1, loaded.manifest.classes])],
    )


def _config(loaded: LoadedVersion, max_delay_ms: float) -> ModelConfig:
    manifest = loaded.manifest
    image = ConfigInput(name=IMAGE, data_type=f"TYPE_{PIXELS}", format="FORMAT_NHWC", dims=list(manifest.input.shape))
    probabilities = ConfigOutput(
        name=PROBABILITIES, data_type="TYPE_FP32", dims=[manifest.classes], label_filename=manifest.labels.file
    )
    kind = "KIND_CPU" if loaded.session.provider == "CPUExecutionProvider" else "KIND_GPU"
    return ModelConfig(
        name=loaded.model,
        platform=PLATFORM,
        backend="onnxruntime",
        max_batch_size=loaded.max_batch_size,
        input=[image],
        output=[probabilities],
        dynamic_batching=DynamicBatching(max_queue_delay_microseconds=round(max_delay_ms * 1000)),
        instance_group=[InstanceGroup(name=loaded.model, kind=kind, count=loaded.instances)],
        default_model_filename=loaded.variant.file,
    )


def _version_statistics(loaded: LoadedVersion, totals: StatsByVersion) -> VersionStatistics:
    statistics = totals.get(version_key(loaded.model, loaded.version), VersionStats())
    return VersionStatistics(
        name=loaded.model,
        version=loaded.version,
        last_inference=statistics.last_inference_unix_ms,
        inference_count=statistics.images,
        execution_count=sum(total.count for total in statistics.batches.values()),
        inference_stats=InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail.plus(statistics.refused)),
            queue=_duration(statistics.queue),
            compute_input=_duration(statistics.decode),
            compute_infer=_duration(statistics.compute),
            compute_output=_duration(statistics.encode),
        ),
        batch_stats=[
            BatchStatistics(batch_size=size, compute_infer=_duration(total))
            for size, total in sorted(statistics.batches.items())
        ],
    )


def _duration(total: DurationTotal) -> Duration:
    return Duration(count=total.count, ns=int(total.seconds * 1e9))
