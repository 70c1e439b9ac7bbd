"""Implements `make bench`: measures Convoy alone.

Every round measures all figures, so that a slow period affects all of them.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from service.hardware import usable_cores
from tests.bench import convoy_process, machine_info, microbenchmark
from tests.bench.load_generators.closed_loop import LoadResult, require_tool, wrk
from tests.bench.load_generators.open_loop import constant_rate
from tests.bench.local_model import LocalModel
from tests.bench.processes import resident_bytes
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.sample_images import Samples, load_samples
from tests.bench.stage_timing import measure_stages
from tests.bench.stage_timing.measure_stages import StageTimes
from tests.bench.workloads import Workload, convoy_workloads, supported_workloads

MICROBENCHMARK_S = 0.25
WARM_UP_S = 1.0
PEAK_FRACTION = 0.6
OPEN_LOOP_CONNECTIONS = 32


@dataclass(frozen=True)
class Plan:
    """The options of a measurement."""

    models: Path
    model: str
    images: Path | None
    workers: int
    rounds: int
    seconds: float
    connections: tuple[int, ...]


@dataclass
class ThroughputResults:
    """The results of one run, each figure once per round."""

    environment: dict[str, str]
    batch: int
    microbenchmark: dict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Images/s by threads and batch size."""
    decode_us: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    resident_bytes: list[float] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    """Images per request for each load that this version of Convoy supports."""
    unsupported: list[str] = field(default_factory=list)
    """Loads that this version does not support."""
    closed_loop: dict[tuple[str, int], list[LoadResult]] = field(default_factory=lambda: defaultdict(list))
    """Results by load and number of connections."""
    open_loop: dict[str, list[LoadResult]] = field(default_factory=lambda: defaultdict(list))
    """Results by load, at PEAK_FRACTION of the load's peak."""
    stages: dict[str, list[StageTimes]] = field(default_factory=lambda: defaultdict(list))
    stages_void: set[str] = field(default_factory=set)

    def voids(self) -> list[str]:
        """Returns the loads without figures, with the reason."""
        voids = [
            f"{load} at {count} connections: {void_reason(f)}"
            for (load, count), f in self.closed_loop.items()
            if is_void(f)
        ]
        voids += [f"{load} at a constant rate: {void_reason(f)}" for load, f in self.open_loop.items() if is_void(f)]
        return voids + [
            f"stages of {load}: a request failed, or none was answered" for load in sorted(self.stages_void)
        ]


def is_void(rounds: list[LoadResult]) -> bool:
    return any(one.failed or one.missing for one in rounds)


def void_reason(rounds: list[LoadResult]) -> str:
    median_round = median_result(rounds)
    return f"{median_round.failed} failed" if median_round.failed else f"{median_round.missing} not answered in time"


def median_result(rounds: list[LoadResult]) -> LoadResult:
    """Returns the median of each figure over the rounds, and the sum of failed and missing requests."""
    return LoadResult(
        requests_per_s=median(one.requests_per_s for one in rounds),
        p50_ms=median(one.p50_ms for one in rounds),
        p99_ms=median(one.p99_ms for one in rounds),
        requests=round(median(one.requests for one in rounds)),
        failed=sum(one.failed for one in rounds),
        missing=sum(one.missing for one in rounds),
    )


def measure(plan: Plan, progress: Callable[[str], None]) -> ThroughputResults:
    """Measures all rounds. Raises CannotMeasure; loads with failed requests are kept and marked as void."""
    require_tool("wrk")
    require_tool("h2load")
    models = {threads: LocalModel(plan.models, plan.model, threads) for threads in sorted({1, usable_cores()})}
    model = models[1]
    sizes = Sizes.of(model.shape)
    samples = load_samples(model, sizes.samples, plan.images)
    results = ThroughputResults(_environment(plan, model, samples), sizes.batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = Bodies(samples, folder, sizes)
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            _microbenchmark(models, samples, results, progress)
            _closed_loop(plan, bodies, folder, results, progress)
            _stages(plan, bodies, folder, results, progress)
        for number in range(plan.rounds):
            progress(f"constant rate, round {number + 1} of {plan.rounds}")
            _open_loop(plan, bodies, folder, results, progress)
    return results


def _environment(plan: Plan, model: LocalModel, samples: Samples) -> dict[str, Any]:
    changes = convoy_process.caller_settings()
    return machine_info.describe() | {
        "model": f"{model.name} version {model.folder.version}, input {'x'.join(map(str, model.shape))}",
        "images": samples.source,
        "service": f"{plan.workers} worker(s), settings as shipped "
        + f"but for a queue of {convoy_process.QUEUE_IMAGES} images"
        + (f", and {', '.join(changes)}" if changes else ""),
        "rounds": f"{plan.rounds}, interleaved; medians",
    }


def _microbenchmark(
    models: dict[int, LocalModel], samples: Samples, results: ThroughputResults, progress: Callable[[str], None]
) -> None:
    for threads, model in models.items():
        by_size = microbenchmark.images_per_s(model, samples, MICROBENCHMARK_S)
        for size, images_per_s in by_size.items():
            results.microbenchmark[threads, size].append(images_per_s)
        progress(f"  onnxruntime, {threads} thread(s): {max(by_size.values()):.0f} images/s at best")
    results.decode_us.append(microbenchmark.decode_us(models[1], samples, MICROBENCHMARK_S))


def _closed_loop(
    plan: Plan, bodies: Bodies, folder: Path, results: ThroughputResults, progress: Callable[[str], None]
) -> None:
    with _service(plan, folder) as service:
        results.ready_s.append(service.ready_s)
        workloads = convoy_workloads(plan.model, results.batch)
        loads = supported_workloads(service.url, workloads, bodies)
        results.unsupported = [load.name for load in workloads if load not in loads]
        for load in loads:
            results.images[load.name] = bodies.get(load.kind).images
            url, body = service.url + load.path, bodies.get(load.kind)
            wrk(url, body, max(plan.connections), WARM_UP_S)
            for connections in plan.connections:
                result = wrk(url, body, connections, plan.seconds)
                results.closed_loop[load.name, connections].append(result)
                progress(f"  {load.name}, {connections} connections: {format_result(result)}")
        results.resident_bytes.append(resident_bytes(service.pid))


def _stages(
    plan: Plan, bodies: Bodies, folder: Path, results: ThroughputResults, progress: Callable[[str], None]
) -> None:
    loads = _measured_workloads(plan, results)
    times_by_load = measure_stages.measure(plan.models, loads, bodies, plan.seconds, folder)
    for load, times_us in times_by_load.items():
        results.stages[load].append(times_us)
        progress(f"  {load}, CPU us: " + ", ".join(f"{stage} {us:.0f}" for stage, us in times_us.items()))
    results.stages_void |= {load.name for load in loads} - times_by_load.keys()


def _open_loop(
    plan: Plan, bodies: Bodies, folder: Path, results: ThroughputResults, progress: Callable[[str], None]
) -> None:
    with _service(plan, folder) as service:
        for load in _measured_workloads(plan, results):
            peaks = [
                median_result(results.closed_loop[load.name, connections]).requests_per_s
                for connections in plan.connections
            ]
            url, body = service.url + load.path, bodies.get(load.kind)
            wrk(url, body, OPEN_LOOP_CONNECTIONS, WARM_UP_S)
            result = constant_rate(url, body, PEAK_FRACTION * max(peaks), OPEN_LOOP_CONNECTIONS, plan.seconds)
            results.open_loop[load.name].append(result)
            progress(f"  {load.name}: {format_result(result)}")


def _measured_workloads(plan: Plan, results: ThroughputResults) -> list[Workload]:
    return [load for load in convoy_workloads(plan.model, results.batch) if load.name in results.images]


def _service(plan: Plan, folder: Path) -> Any:
    return convoy_process.run_convoy(plan.models, folder / "service.log", convoy_process.bench_settings(plan.workers))


def format_result(result: LoadResult) -> str:
    problem = f", VOID: {void_reason([result])}" if is_void([result]) else ""
    return f"{result.requests_per_s:.0f} requests/s, p50 {result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms{problem}"
