"""Estimates the number of replicas for a load: measures one replica on one core and simulates many.

`python -m tests.bench.capacity` writes the result to docs/capacity.md, with the error of the simulation. The replica is
bound to one core, and the load generator to another core. The simulation is calibrated with two loads and checked
against other loads of the same round.
"""

import contextlib
import math
import os
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from prometheus_client.parser import text_string_to_metric_families

from tests.bench import convoy_process, machine_info, microbenchmark, processes
from tests.bench.capacity.simulation import (
    Replica,
    SimulationResult,
    simulate_autoscaler,
    simulate_closed_loop,
    simulate_open_loop,
)
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import LoadResult, require_tool, wrk
from tests.bench.load_generators.open_loop import constant_rate
from tests.bench.local_model import LocalModel
from tests.bench.report import markdown
from tests.bench.request_bodies import Bodies, Body, Sizes
from tests.bench.sample_images import Samples, load_samples
from tests.bench.workloads import Workload, convoy_workloads, supported_workloads

MICROBENCHMARK_S = 0.3
CALIBRATION_CONNECTIONS = 32
VALIDATION_CONNECTIONS = (4, 128)
"""Connections."""
VALIDATION_RATES = (0.3, 0.6)
"""Rates of the constant-rate loads, as fractions of the measured peak."""
RATE_CONNECTIONS = 32
LOADS = (1_000, 10_000, 100_000)
"""Requests per second in the rows of the table."""
TARGET_UTILIZATION = 0.6
"""Target CPU utilization of the HorizontalPodAutoscaler in k8s/base."""
POD_START_S = 10
"""Seconds from the autoscaler's decision to the first request: scheduling, starting the container, and starting
Convoy."""
SIMULATED_S = 10.0
GROWTH = 3


@dataclass(frozen=True)
class Plan:
    """The options of a measurement."""

    models: Path
    model: str
    images: Path | None
    rounds: int
    seconds: float


@dataclass
class CapacityResults:
    """Results of all rounds: the calibrated replicas, and each check as (measured, simulated)."""

    environment: dict[str, str]
    replicas: list[Replica] = field(default_factory=list)
    peaks_per_s: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    checks: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    voids: list[str] = field(default_factory=list)


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Binds this thread, and the processes that it starts, to one core within the context."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(plan: Plan) -> CapacityResults:
    """Measures all rounds. Raises CannotMeasure."""
    require_tool("wrk")
    require_tool("h2load")
    service_core, load_core = two_cores()
    model = LocalModel(plan.models, plan.model, 1)
    sizes = Sizes.of(model.shape)
    samples = load_samples(model, sizes.samples, plan.images)
    results = CapacityResults(_environment(plan, model, samples))
    with tempfile.TemporaryDirectory() as name:
        bodies = Bodies(samples, Path(name), sizes)
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds}", flush=True)
            with on_core(service_core):
                batch_s = {
                    size: size / per_s
                    for size, per_s in microbenchmark.images_per_s(model, samples, MICROBENCHMARK_S).items()
                }
            with (
                on_core(service_core),
                convoy_process.run_convoy(plan.models, Path(name) / "service.log", {"CONVOY_WORKERS": "1"}) as service,
                on_core(load_core),
            ):
                (load,) = supported_workloads(service.url, _loads(plan.model), bodies)
                _round(plan, service, load, bodies.get(load.kind), batch_s, results)
    return results


def two_cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise CannotMeasure("The replica and the load generator need one core each, but this machine has only one.")
    return cores[0], cores[1]


def _loads(model: str) -> list[Workload]:
    return [load for load in convoy_workloads(model, 1) if load.name == "image"]


def _round(
    plan: Plan,
    service: convoy_process.Service,
    load: Workload,
    body: Body,
    batch_s: dict[int, float],
    results: CapacityResults,
) -> None:
    url = service.url + load.path
    replica, peak = _calibrate(plan, service, url, body, batch_s)
    results.replicas.append(replica)
    results.peaks_per_s.append(peak.requests_per_s)
    results.memory_bytes.append(processes.resident_bytes(service.pid))
    results.ready_s.append(service.ready_s)
    for connections in VALIDATION_CONNECTIONS:
        result = wrk(url, body, connections, plan.seconds)
        _compare(
            results, f"{connections} connections", result, simulate_closed_loop(replica, connections, SIMULATED_S), True
        )
    for fraction in VALIDATION_RATES:
        rate = fraction * peak.requests_per_s
        result = constant_rate(url, body, rate, RATE_CONNECTIONS, plan.seconds)
        _compare(results, f"{fraction:.0%} of the peak", result, simulate_open_loop(replica, rate, SIMULATED_S), False)


def _calibrate(
    plan: Plan, service: convoy_process.Service, url: str, body: Body, batch_s: dict[int, float]
) -> tuple[Replica, LoadResult]:
    """Returns a replica with its costs per request, and the peak load.

    Under full load, the cost of a request outside the model is the processor time of the service minus the processor
    time of the model's runs. The network's latency is the part of a single connection's latency that these costs do not
    explain.
    """
    single = wrk(url, body, 1, plan.seconds)
    used_s, runs, images = processes.cpu_s(service.pid), *_batches(service.url)
    full = wrk(url, body, CALIBRATION_CONNECTIONS, plan.seconds)
    used_s, runs, images = (
        after - before
        for after, before in zip(
            (processes.cpu_s(service.pid), *_batches(service.url)), (used_s, runs, images), strict=True
        )
    )
    if full.failed or single.failed or not images:
        raise CannotMeasure("A request failed during the calibration: see the service's log.")
    model_s = Replica(0.0, batch_s).run_s(round(images / runs)) * runs
    if used_s <= model_s:
        raise CannotMeasure(
            "The model alone took more time than the whole service, so this machine is busy with other work. Try again "
            "later."
        )
    request_s = (used_s - model_s) / images
    network_s = max(0.0, single.p50_ms / 1000 - request_s - batch_s[1])
    return Replica(request_s, batch_s, network_s, max_batch_size=max(batch_s)), full


def _batches(url: str) -> tuple[float, float]:
    """Returns the number of batches of all models so far, and the number of images in them."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    totals: dict[str, float] = defaultdict(float)
    for family in families:
        for sample in family.samples:
            totals[sample.name] += sample.value
    return totals["convoy_batch_images_count"], totals["convoy_batch_images_sum"]


def _compare(
    results: CapacityResults, name: str, result: LoadResult, simulated: SimulationResult, closed_loop: bool
) -> None:
    if result.failed or result.missing:
        results.voids.append(f"{name}: {result.failed} failed, {result.missing} missing")
        return
    if closed_loop:
        results.checks[f"{name}: requests/s"].append((result.requests_per_s, simulated.answered_per_s))
    results.checks[f"{name}: p50 ms"].append((result.p50_ms, simulated.p50_ms))
    results.checks[f"{name}: p99 ms"].append((result.p99_ms, simulated.p99_ms))


def _environment(plan: Plan, model: LocalModel, samples: Samples) -> dict[str, str]:
    changes = convoy_process.caller_settings()
    return machine_info.describe() | {
        "model": f"{model.name} version {model.folder.version}, input {'x'.join(map(str, model.shape))}",
        "images": samples.source,
        "replica": f"1 worker on 1 core, settings as shipped{' but ' * bool(changes)}{', '.join(changes)}",
        "rounds": f"{plan.rounds}, loads of {plan.seconds:g} s, interleaved; medians",
    }


def section(results: CapacityResults, command: str) -> str:
    """Returns the results as a Markdown section."""
    replica = sorted(results.replicas, key=Replica.peak_per_s)[len(results.replicas) // 2]
    per_core = median(results.peaks_per_s)
    return "\n\n".join(
        [
            markdown.environment_table(results.environment, command),
            f"One core classifies {per_core:,.0f} images per second, each in a request of its own "
            f"({1e6 * replica.request_s:.0f} us for HTTP, decoding and the response, "
            f"{1e6 * replica.run_s(32) / 32:.0f} us "
            "for the model in full batches). A replica with one core uses "
            f"{median(results.memory_bytes) / 2**20:.0f} MiB of memory "
            f"and is ready {median(results.ready_s):.1f} s after its start.",
            f"Simulated replicas with one core at {TARGET_UTILIZATION:.0%} utilization:",
            _replicas(replica),
            f"Simulated response to a load that grows {GROWTH}-fold at once (the autoscaler checks every 15 s, and a "
            f"pod is ready after {POD_START_S} s):",
            _growth(replica),
            "Measurements compared with the simulation, which is calibrated with 1 and "
            f"{CALIBRATION_CONNECTIONS} connections in the same round:",
            _checks(results.checks),
        ]
    )


def _replicas(replica: Replica) -> str:
    rows = []
    per_replica = TARGET_UTILIZATION * replica.peak_per_s()
    for load in LOADS:
        count = math.ceil(load / per_replica)
        simulated = simulate_open_loop(replica, load / count, SIMULATED_S)
        hours = count / 3600 / load * 1e9
        row = [
            f"{load:,}",
            f"{count:,}",
            f"{simulated.utilization:.0%}",
            f"{simulated.p50_ms:.1f}",
            f"{simulated.p99_ms:.1f}",
        ]
        rows.append([*row, f"{hours:,.0f}"])
    return markdown.table(
        ["requests/s", "replicas", "utilization", "p50 ms", "p99 ms", "core-hours per 10^9 images"], rows
    )


def _growth(replica: Replica) -> str:
    rows = []
    for load in LOADS:
        before = math.ceil(load / GROWTH / (TARGET_UTILIZATION * replica.peak_per_s()))
        simulated = simulate_autoscaler(
            replica.peak_per_s(),
            before,
            lambda _, load=load: load,
            seconds=1800,
            target=TARGET_UTILIZATION,
            max_replicas=10**6,
            start_s=POD_START_S,
            queue=replica.max_queue_images,
        )
        rows.append(
            [
                f"{load:,}",
                f"{before:,}",
                f"{simulated.replicas:,}",
                f"{simulated.settled_s:.0f}",
                f"{simulated.refused:.1%}",
            ]
        )
    head = ["requests/s", "replicas before", "replicas at the end", "seconds until no delay"]
    return markdown.table([*head, "rejected in half an hour"], rows)


def _checks(checks: dict[str, list[tuple[float, float]]]) -> str:
    rows = []
    for name, pairs in checks.items():
        measured, simulated = (median(pair[side] for pair in pairs) for side in (0, 1))
        error = median(estimate / actual - 1 for actual, estimate in pairs)
        rows.append([name, f"{measured:,.1f}", f"{simulated:,.1f}", f"{error:+.0%}"])
    return markdown.table(["load and figure", "measured", "simulated", "error"], rows)
