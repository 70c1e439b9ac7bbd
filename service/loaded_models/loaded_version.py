"""Loads one version of a model: warms up and measures its graph, and gives it its own queue and threads."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import orjson
from numpy.typing import NDArray

from service.hardware import usable_cores
from service.inference.batch_size import choose_batch_sizes, measure_batch_ms
from service.inference.batcher import Batcher
from service.inference.engine_choice import Candidate
from service.inference.feature_maps import FeatureGraph
from service.inference.input_budget import InputBudget
from service.inference.providers import CPU_PROVIDER
from service.inference.session import WARM_UP_TIMEOUT_S, Session, TimeLimitedSession
from service.inference.threads_and_priority import start_model_threads, threads_per_run
from service.loaded_models.engine_selection import EngineChoice, EngineChoices
from service.loaded_models.session_opener import SessionOpener, placement_of
from service.model_store.desired_state import ModelSpec
from service.model_store.manifest import MIN_LIKELY_PROBABILITY, Manifest, Variant
from service.model_store.repository import VersionFolder
from service.observability.metrics import Metrics
from service.observability.version_stats import VersionStats
from service.settings import Settings

# Runs shorter than this execute on the event loop. With a single core the limit is higher, because a thread would
# compete for that core anyway. This gains 10 % throughput for single images and 2 % for requests of 64 images.
MAX_INLINE_RUN_S = 0.0003
MAX_INLINE_RUN_ONE_CORE_S = 0.0025


@dataclass(frozen=True)
class LoadedVersion:
    """A version that is ready to serve. `batch_ms` holds the measured milliseconds per run by batch size."""

    folder: VersionFolder
    candidate: Candidate
    engine_choice: EngineChoice
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
        """Identifies the loaded content, because the files of a version may be edited in place."""
        return self.folder.digest

    @property
    def variant(self) -> Variant:
        return self.candidate.variant

    @property
    def labels(self) -> tuple[str, ...]:
        return self.folder.labels

    @cached_property
    def label_bytes(self) -> tuple[int, int]:
        """Bytes in JSON of the longest label, and of all labels together."""
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
    engine_choices: EngineChoices | None = None,
) -> LoadedVersion:
    """Loads, warms up and measures one version, which blocks. The version's images count toward `input_budget`.

    `worker_id` decides which of several GPUs is used. `engine_choices` is shared with the other workers; by default
    this process measures for itself.

    Raises BrokenVersion if the version cannot be loaded, or if a run takes longer than `warm_up_timeout_s`.
    """
    instances, cores = spec.instances, usable_cores() // settings.workers
    threads = threads_per_run(settings.threads, cores, instances)
    executor = start_model_threads(f"{folder.model}-{folder.version}", instances, spec.weight)
    try:
        # On the model's own thread: onnxruntime's threads inherit its niceness.
        opener = SessionOpener(folder, spec, settings, threads, worker_id)
        candidate, choice, session, batch_ms = executor.submit(
            _load_session, opener, settings, warm_up_timeout_s, engine_choices or EngineChoices()
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
        on_demand=metrics.demand_s.labels(folder.model).inc,
        run_inline=inline_session.run if _may_run_inline(spec, candidate) else None,
        max_inline_run_s=_max_inline_run_s(session, cores),
        input_bytes=math.prod(folder.manifest.input.shape),
        input_budget=input_budget,
        run_s_by_size={size: run_ms / 1000 for size, run_ms in batch_ms.items()},
    )
    return LoadedVersion(
        folder=folder,
        candidate=candidate,
        engine_choice=choice,
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
        devices=_devices(candidate, settings),
    )


def _load_session(
    opener: SessionOpener, settings: Settings, timeout_s: float, engine_choices: EngineChoices
) -> tuple[Candidate, EngineChoice, Session, dict[int, float]]:
    candidate, choice = opener.choose(engine_choices, timeout_s)
    session = opener.open(candidate)
    batch_ms = measure_batch_ms(
        session,
        opener.folder.manifest.input.shape,
        settings.max_batch_size,
        may_grow=not settings.max_batch_size and not candidate.placement.buckets,
        timeout_s=timeout_s,
    )
    return candidate, choice, session, batch_ms


def _devices(candidate: Candidate, settings: Settings) -> list[str]:
    """The device of each worker. Only GPUs differ between workers."""
    workers = range(settings.workers)
    if not candidate.placement.is_on_nvidia:
        return [candidate.engine for _ in workers]
    return [placement_of(settings, settings.gpu_of(worker)).device for worker in workers]


def _may_run_inline(spec: ModelSpec, candidate: Candidate) -> bool:
    """Whether short runs may execute on the event loop's thread.

    A model with a weight needs its own threads, whose niceness can be changed. A run of OpenVINO cannot be terminated,
    so it would stop the whole service if it hung.
    """
    return spec.weight == 1 and not candidate.placement.is_on_openvino


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
