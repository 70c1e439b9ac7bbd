"""Open Inference Protocol V2 beside inference: health, metadata, Triton's config and statistics, the repository."""

from importlib.metadata import version as version_of
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from service.errors import NotAllowed, NotReady
from service.fleet import Fleet
from service.lifecycle import Lifecycle
from service.manifest import IMAGE, PROBABILITIES
from service.registry import Registry
from service.served import Served
from service.statistics import Statistics, Total
from service.sums import Counted, key_of

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
MODEL = "/models/{model}"
VERSION = "/models/{model}/versions/{version}"
Json = dict[str, Any]


def v2_routes(registry: Registry, fleet: Fleet, lifecycle: Lifecycle, repository_changes: bool) -> APIRouter:
    """Everything under /v2 but inference."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol V2"])
    _add_health(router, registry, fleet, lifecycle)
    _add_statistics(router, registry, fleet)  # before what would take "stats" for a model's name
    _add_metadata(router, registry)
    _add_repository(router, registry, fleet, repository_changes)
    return router


def _add_health(router: APIRouter, registry: Registry, fleet: Fleet, lifecycle: Lifecycle) -> None:
    @router.get("/health/live", summary="Whether the process answers")
    async def server_live() -> Json:
        return {"live": True}

    @router.get("/health/ready", summary="Whether every configured model is warm")
    async def server_ready() -> Json:
        if lifecycle.stopping or fleet.not_ready_because():
            raise NotReady("The service is not ready.")
        return {"ready": True}

    @router.get(MODEL + "/ready", summary="Whether a model is warm")
    @router.get(VERSION + "/ready", summary="Whether a version is warm")
    async def model_ready(model: str, version: str | None = None) -> Json:
        registry.get(model, version)
        return {"name": model, "ready": True}


def _add_metadata(router: APIRouter, registry: Registry) -> None:
    @router.get("", summary="Server metadata")
    @router.get("/", include_in_schema=False)
    async def server_metadata() -> Json:
        return {"name": "convoy", "version": version_of("convoy"), "extensions": EXTENSIONS}

    @router.get(MODEL, summary="Model metadata")
    @router.get(VERSION, summary="Version metadata")
    async def metadata(model: str, version: str | None = None) -> Json:
        return _metadata(registry.get(model, version), registry)

    @router.get(MODEL + "/config", summary="Model configuration")
    @router.get(VERSION + "/config", summary="Version configuration")
    async def config(model: str, version: str | None = None) -> Json:
        return _config(registry.get(model, version))


def _add_statistics(router: APIRouter, registry: Registry, fleet: Fleet) -> None:
    @router.get("/models/stats", summary="Statistics of all models")
    async def all_statistics() -> Json:
        done = fleet.statistics()
        return {"model_stats": [_statistics(served, done) for versions in registry.all() for served in versions]}

    @router.get(MODEL + "/stats", summary="Statistics of a model")
    @router.get(VERSION + "/stats", summary="Statistics of a version")
    async def statistics(model: str, version: str | None = None) -> Json:
        wanted = registry.get(model, version)
        done = fleet.statistics()
        versions = registry.model(model).newest_first()
        return {"model_stats": [_statistics(s, done) for s in versions if version is None or s is wanted]}


def _add_repository(router: APIRouter, registry: Registry, fleet: Fleet, repository_changes: bool) -> None:
    @router.post("/repository/index", summary="Every version on disk, and whether it is served")
    async def index() -> list[Json]:
        return [
            {"name": e.model, "version": e.version, "state": "READY" if e.ready else "UNAVAILABLE", "reason": e.reason}
            for e in await run_in_threadpool(registry.index)
        ]

    @router.post("/repository/models/{model}/load", summary="Load the newest versions of a model")
    async def load(model: str) -> Json:
        _allow(repository_changes)
        await fleet.load(model)
        return {}

    @router.post("/repository/models/{model}/unload", summary="Take a model out of service")
    async def unload(model: str) -> Json:
        _allow(repository_changes)
        await fleet.unload(model)
        return {}


def _allow(repository_changes: bool) -> None:
    if not repository_changes:
        raise NotAllowed("Clients may not load or unload models here.")


def _metadata(served: Served, registry: Registry) -> Json:
    versions = registry.model(served.model).newest_first()
    return {
        "name": served.model,
        "versions": [s.version for s in reversed(versions)],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": IMAGE, "datatype": "UINT8", "shape": [-1, *served.manifest.input.shape]}],
        "outputs": [{"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, served.manifest.classes]}],
    }


def _config(served: Served) -> Json:
    return {
        "name": served.model,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": served.max_batch_size,
        "input": [{"name": IMAGE, "data_type": "TYPE_UINT8", "dims": list(served.manifest.input.shape)}],
        "output": [{"name": PROBABILITIES, "data_type": "TYPE_FP32", "dims": [served.manifest.classes]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "instance_group": [{"name": served.model, "kind": "KIND_CPU", "count": served.instances}],
        "default_model_filename": served.variant.file,
    }


def _statistics(served: Served, counted: Counted) -> Json:
    done = counted.get(key_of(served.model, served.version), Statistics())
    return {
        "name": served.model,
        "version": served.version,
        "last_inference": done.last_unix_ms,
        "inference_count": done.images,
        "execution_count": sum(total.count for total in done.batches.values()),
        "inference_stats": {
            "success": _nanoseconds(done.success),
            "fail": _nanoseconds(done.fail),
            "queue": _nanoseconds(done.queue),
            "compute_input": _nanoseconds(done.decode),
            "compute_infer": _nanoseconds(done.compute),
            "compute_output": _nanoseconds(done.encode),
        },
        "batch_stats": [
            {"batch_size": size, "compute_infer": _nanoseconds(total)} for size, total in sorted(done.batches.items())
        ],
    }


def _nanoseconds(total: Total) -> Json:
    return {"count": total.count, "ns": int(total.seconds * 1e9)}
