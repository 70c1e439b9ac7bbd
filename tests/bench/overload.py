"""`make bench-overload`: a service as shipped under one, two and four times what it can do.

What it can do is measured first, by the same generator, so that a generator that shares the machine hits both alike.
"""

import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench import convoy_process, machine_info
from tests.bench.load_generators.saturation import OK, Outcome, saturate, summarize
from tests.bench.local_model import LocalModel
from tests.bench.processes import cpu_s
from tests.bench.request_bodies import Bodies, Body, Sizes
from tests.bench.sample_images import load_samples
from tests.bench.workloads import Workload, convoy_workloads, supported_workloads

Progress = Callable[[str], None]

FACTORS = (1, 2, 4)
PEAK_CONNECTIONS = (16, 32, 64)
WARM_UP = 0.25  # of each load; what it does to begin with does not count
MIN_REQUESTS_PER_S = 4  # requests of one connection
IDLE_PROBES = 100  # probes
RECOVERED_PROBES = 5  # probes in a row that are as fast as at rest
RECOVERY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long. `connections` offer the overload."""

    models: Path
    model: str
    images: Path | None
    workers: int
    rounds: int
    seconds: float
    connections: int
    only: tuple[str, ...] = ()
    """Names of loads; three of different cost by default."""


class Step(NamedTuple):
    """One factor in one round: the service right before at its peak, under the overload, and after it."""

    peak: Outcome
    overload: Outcome
    peak_cpu_us: float
    """Processor time of the service for one good answer."""
    overload_cpu_us: float
    """The same, all that it spent on refusals included."""
    recovery_s: float


@dataclass
class OverloadResults:
    """Everything of one run."""

    environment: dict[str, str]
    steps: dict[tuple[str, int], list[Step]] = field(default_factory=lambda: defaultdict(list))
    """By load and factor, one a round."""

    def goodput_ratio(self, load: str, factor: int) -> float:
        """Goodput at that factor over the peak right before it: the median, for other work on the machine passes."""
        return median(step.overload.goodput_per_s / step.peak.goodput_per_s for step in self.steps[load, factor])

    def voids(self) -> list[str]:
        """What is no overload behaviour but a failure: answers other than 200 and 429, or none."""
        return [
            f"{load} at {factor}x: {sum(step.overload.other for step in steps)} failed"
            for (load, factor), steps in self.steps.items()
            if any(step.overload.other for step in steps)
        ]


def measure(plan: Plan, progress: Progress) -> OverloadResults:
    """Raises CannotMeasure."""
    model = LocalModel(plan.models, plan.model, 1)
    sizes = Sizes.of(model.shape)
    samples = load_samples(model, sizes.samples, plan.images)
    results = OverloadResults(_environment(plan, model, samples.source))
    with tempfile.TemporaryDirectory() as name:
        bodies = Bodies(samples, Path(name), sizes)
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            with convoy_process.run_convoy(plan.models, Path(name) / "service.log", _settings(plan)) as service:
                for load in supported_workloads(service.url, _loads(plan, sizes.batch), bodies):
                    _round(plan, load, service, bodies.get(load.kind), results, progress)
    return results


def _loads(plan: Plan, batch: int) -> list[Workload]:
    """A tiny request, whose cost is HTTP; a large one, whose cost is decoding; and one that is mostly the model."""
    names = plan.only or ("image", f"images x{batch} (form)", f"v2 binary x{batch}")
    return [load for load in convoy_workloads(plan.model, batch) if load.name in names]


def _round(
    plan: Plan,
    load: Workload,
    service: convoy_process.Service,
    body: Body,
    results: OverloadResults,
    progress: Progress,
) -> None:
    url = service.url + load.path
    goodput_by_connections = {
        count: _closed_loop(url, body, count, plan.seconds).goodput_per_s for count in PEAK_CONNECTIONS
    }
    best = max(PEAK_CONNECTIONS, key=lambda count: goodput_by_connections[count])
    for factor in FACTORS:
        idle_s = idle_latency_s(url, body)
        peak, peak_cpu_us = _with_cpu_time(service, url, body, best, plan.seconds)
        rate = factor * peak.goodput_per_s
        overload, overload_cpu_us = _with_cpu_time(
            service, url, body, connections_for(rate, plan.connections), plan.seconds, rate
        )
        step = Step(peak, overload, peak_cpu_us, overload_cpu_us, recovery(url, body, idle_s))
        results.steps[load.name, factor].append(step)
        progress(
            f"  {load.name}, {factor}x: {overload.goodput_per_s:.0f}/s good of {peak.goodput_per_s:.0f} at the peak, "
            f"{overload.refused_per_s:.0f}/s refused, p99 of accepted {overload.p99_ms:.0f} ms, "
            f"recovered in {step.recovery_s:.2f} s"
        )


def _with_cpu_time(
    service: convoy_process.Service,
    url: str,
    body: Body,
    connections: int,
    seconds: float,
    requests_per_s: float | None = None,
) -> tuple[Outcome, float]:
    """What became of the load, and microseconds of processor time for each good answer."""
    before_s = cpu_s(service.pid)
    records = saturate(url, body, connections, seconds, requests_per_s)
    good_count = sum(one.status == OK for one in records)
    return summarize(records, WARM_UP * seconds, seconds), (cpu_s(service.pid) - before_s) / max(1, good_count) * 1e6


def _closed_loop(url: str, body: Body, connections: int, seconds: float) -> Outcome:
    return summarize(saturate(url, body, connections, seconds), WARM_UP * seconds, seconds)


def connections_for(requests_per_s: float, max_connections: int) -> int:
    """As many as send a few requests a second each: all of them begin with one at once, which is no constant rate."""
    return max(
        min(max_connections, round(requests_per_s / MIN_REQUESTS_PER_S)), min(max_connections, PEAK_CONNECTIONS[-1])
    )


def idle_latency_s(url: str, body: Body) -> float:
    """Seconds that all but the slowest of a few lonely requests take."""
    latencies_s = sorted(_probe(url, body) for _ in range(IDLE_PROBES))
    return latencies_s[int(0.95 * IDLE_PROBES)]


def recovery(url: str, body: Body, idle_s: float) -> float:
    """Seconds from now until requests are answered as fast as when idle; the timeout if they never are."""
    started_s = time.monotonic()
    recovered_probes, recovered_s = 0, 0.0
    while recovered_probes < RECOVERED_PROBES and time.monotonic() - started_s < RECOVERY_TIMEOUT_S:
        probed_s = time.monotonic()
        is_fast = _probe(url, body) <= 2 * idle_s
        recovered_s = probed_s - started_s if is_fast and not recovered_probes else recovered_s
        recovered_probes = recovered_probes + 1 if is_fast else 0
    return recovered_s if recovered_probes else RECOVERY_TIMEOUT_S


def _probe(url: str, body: Body) -> float:
    """Seconds of one request; endless when it is refused."""
    request = urllib.request.Request(url, body.file(0).read_bytes(), body.headers())
    started_s = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=RECOVERY_TIMEOUT_S) as reply:
            reply.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return float("inf")
    return time.monotonic() - started_s


def _settings(plan: Plan) -> dict[str, str]:
    return {"CONVOY_WORKERS": str(plan.workers)}


def _environment(plan: Plan, model: LocalModel, images: str) -> dict[str, str]:
    changes = convoy_process.caller_settings()
    return machine_info.describe() | {
        "model": f"{model.name} version {model.folder.version}, input {'x'.join(map(str, model.shape))}",
        "images": images,
        "service": f"{plan.workers} worker(s), settings as shipped{' but ' * bool(changes)}{', '.join(changes)}",
        "load": f"up to {plan.connections} connections, {plan.seconds:g} s each",
        "rounds": f"{plan.rounds}; medians",
    }
