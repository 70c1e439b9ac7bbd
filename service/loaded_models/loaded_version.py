"""One loaded version of a model: its graph, warmed up and measured, with its own queue and threads."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import orjson
from numpy.typing import NDArray

from service.hardware import cpu_flags, has_nvidia_gpu, usable_cores
from service.inference.batch_size import choose_batch_sizes, measure_batch_ms
from service.inference.batcher import Batcher
from service.inference.cuda_devices import UnusableGpu, list_gpus, load_driver
from service.inference.feature_maps import FeatureGraph
from service.inference.input_budget import InputBudget
from service.inference.providers import (
    CPU_PROVIDER,
    TENSORRT_PROVIDER,
    Placement,
    provider_error,
    select_placement,
    select_variant,
)
from service.inference.session import (
    WARM_UP_TIMEOUT_S,
    Session,
    TimeLimitedSession,
    available_providers,
    onnxruntime_version,
    provider_library,
)
from service.inference.tensorrt import EngineCache, environment_name, profile_options, tensorrt_version
from service.inference.threads_and_priority import start_model_threads, threads_per_run
from service.model_store.desired_state import ModelSpec
from service.model_store.manifest import MIN_LIKELY_PROBABILITY, Manifest, Variant
from service.model_store.repository import VersionFolder
from service.observability.metrics import Metrics
from service.observability.version_stats import VersionStats
from service.settings import Settings, user_cache_folder

# Runs shorter than this execute on the event loop. With a single core the limit is higher, because a thread would
# compete for that core anyway: 10 % more throughput for single images, 2 % for 64 at once.
MAX_INLINE_RUN_S = 0.0003
MAX_INLINE_RUN_ONE_CORE_S = 0.0025


@dataclass(frozen=True)
class LoadedVersion:
    """A version that is ready to serve. `batch_ms` are measured milliseconds of a run by batch size."""

    folder: VersionFolder
    variant: Variant
    session: Session
    inline_session: TimeLimitedSession
    batcher: Batcher
    executor: ThreadPoolExecutor
    statistics: VersionStats
    threads: int
    instances: int
    max_batch_size: int
    batch_ms: dict[int, float]
    feature_graph: FeatureGraph
    devices: list[str]
    """The device of each worker, by its id."""

    @property
    def model(self) -> str:
        return self.folder.model

    @property
    def version(self) -> str:
        return str(self.folder.version)

    @property
    def manifest(self) -> Manifest:
        return self.folder.manifest

    @property
    def digest(self) -> str:
        """Identifies the content that is loaded: a version may be edited in place."""
        return self.folder.digest

    @property
    def labels(self) -> tuple[str, ...]:
        return self.folder.labels

    @cached_property
    def label_bytes(self) -> tuple[int, int]:
        """The bytes in JSON of the longest label, and of all labels together."""
        sizes = [len(orjson.dumps(label)) for label in self.labels]
        return max(sizes), sum(sizes)

    async def close(self) -> None:
        """Waits for the queued requests, then releases the threads."""
        await self.batcher.drain()
        self.executor.shutdown(wait=False)
        self.inline_session.close()


def load(
    folder: VersionFolder,
    spec: ModelSpec,
    settings: Settings,
    metrics: Metrics,
    warm_up_timeout_s: float = WARM_UP_TIMEOUT_S,
    input_budget: InputBudget | None = None,
    worker_id: int = 0,
) -> LoadedVersion:
    """Loads, warms up and measures one version; blocks meanwhile. Its images count in `input_budget`.

    Which GPU it uses depends on `worker_id`.

    Raises BrokenVersion, also when a run of the graph takes longer than `warm_up_timeout_s`.
    """
    instances, cores = spec.instances, usable_cores() // settings.workers
    threads = threads_per_run(settings.threads, cores, instances)
    executor = start_model_threads(f"{folder.model}-{folder.version}", instances, spec.weight)
    try:
        # On the model's own thread: onnxruntime's threads inherit its niceness.
        variant, session, batch_ms = executor.submit(
            _load_session, folder, settings, threads, warm_up_timeout_s, worker_id
        ).result()
    except BaseException:
        executor.shutdown(wait=False)
        raise
    sizes = choose_batch_sizes(batch_ms, settings.latency_budget_ms, is_configured=settings.max_batch_size > 0)
    statistics = VersionStats()
    inline_session = TimeLimitedSession(session)
    batcher = Batcher(
        session.run,
        executor,
        max_batch_size=sizes.max,
        normal_batch_size=sizes.normal,
        max_queue_images=settings.max_queue_images,
        max_delay_ms=settings.max_delay_ms,
        instances=instances,
        on_batch=_batch_recorder(folder, metrics, statistics, settings.metrics_labels),
        run_inline=inline_session.run if spec.weight == 1 else None,  # the event loop's thread cannot be niced
        max_inline_run_s=_max_inline_run_s(session, cores),
        input_bytes=math.prod(folder.manifest.input.shape),
        input_budget=input_budget,
        run_s_by_size={size: run_ms / 1000 for size, run_ms in batch_ms.items()},
    )
    return LoadedVersion(
        folder=folder,
        variant=variant,
        session=session,
        inline_session=inline_session,
        batcher=batcher,
        executor=executor,
        statistics=statistics,
        threads=threads,
        instances=instances,
        max_batch_size=sizes.max,
        batch_ms=batch_ms,
        feature_graph=FeatureGraph(folder),
        devices=[_placement(settings, worker).device for worker in range(settings.workers)],
    )


def select_variant_and_placement(
    folder: VersionFolder, settings: Settings, worker_id: int = 0
) -> tuple[Variant, Placement]:
    """The graph of the version that `load` chooses on this machine, and its device. Raises BrokenVersion."""
    placement = _placement(settings, worker_id)
    return select_variant(folder.manifest, placement, cpu_flags(), settings.precision), placement


def _placement(settings: Settings, worker_id: int) -> Placement:
    return select_placement(
        settings.device,
        settings.providers,
        available_providers(),
        has_gpu=has_nvidia_gpu(),
        max_batch_size=settings.max_batch_size,
        gpu_memory_limit_bytes=settings.gpu_memory_limit_bytes,
        gpu=settings.gpu_of(worker_id),
    )


def _load_session(
    folder: VersionFolder, settings: Settings, threads: int, timeout_s: float, worker_id: int
) -> tuple[Variant, Session, dict[int, float]]:
    variant, placement = select_variant_and_placement(folder, settings, worker_id)
    expected, path = folder.manifest.input, folder.graph_path(variant)
    cache = None
    if TENSORRT_PROVIDER in placement.providers:
        profile = profile_options(expected.shape, placement.buckets)
        root = settings.tensorrt_cache or user_cache_folder() / "tensorrt"
        cache = EngineCache(root, _tensorrt_environment(settings.gpu_of(worker_id) or 0), variant.sha256, profile)
    session = Session(path, expected, folder.manifest.classes, threads, placement, cache)
    batch_ms = measure_batch_ms(
        session,
        folder.manifest.input.shape,
        settings.max_batch_size,
        may_grow=not settings.max_batch_size and not placement.buckets,
        timeout_s=timeout_s,
    )
    return variant, session, batch_ms


def _tensorrt_environment(gpu: int) -> str:
    """Raises BrokenVersion without a GPU or TensorRT's library."""
    try:
        return environment_name(
            list_gpus(load_driver())[gpu],
            onnxruntime_version(),
            tensorrt_version(provider_library(TENSORRT_PROVIDER)),
        )
    except (UnusableGpu, IndexError, OSError) as error:
        raise provider_error(TENSORRT_PROVIDER, str(error).rstrip(".")) from error


def _max_inline_run_s(session: Session, cores: int) -> float:
    """The expected seconds up to which a run executes on the event loop's thread."""
    return MAX_INLINE_RUN_ONE_CORE_S if cores <= 1 and session.provider == CPU_PROVIDER else MAX_INLINE_RUN_S


def _batch_recorder(
    folder: VersionFolder, metrics: Metrics, statistics: VersionStats, labels: int
) -> Callable[[NDArray[np.float32], float], None]:
    images, seconds = metrics.batch_images.labels(folder.model), metrics.compute_s.labels(folder.model)
    class_counter = metrics.class_counter(folder.model, folder.labels, labels)
    is_multi_label = folder.manifest.activation == "sigmoid"

    def on_batch(probabilities: NDArray[np.float32], compute_s: float) -> None:
        images.observe(len(probabilities))
        seconds.observe(compute_s)
        if is_multi_label:
            class_counter.add_labels(probabilities, MIN_LIKELY_PROBABILITY)
        else:
            class_counter.add(probabilities)
        statistics.add_batch(len(probabilities), compute_s)

    return on_batch
