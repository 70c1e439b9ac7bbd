"""How many replicas a load needs: measures one on one core, simulates many, and says how far the two are apart.

`python -m tests.bench.capacity` writes the outcome into k8s/README.md. One replica is bound to one core, the load
generator to another. The simulation is calibrated by two loads and checked against others of the same round.
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
from tests.bench.capacity.simulation import Replica, Simulated, at_rate, in_turn, scale
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import Fired, need, wrk
from tests.bench.load_generators.open_loop import constant_rate
from tests.bench.local_model import LocalModel
from tests.bench.report import markdown
from tests.bench.request_bodies import Bodies, Body, Sizes
from tests.bench.sample_images import Samples, samples
from tests.bench.workloads import Load, convoy_loads, offered

RAW_S = 0.3
CALIBRATING = 32
CHECKED = (4, 128)
"""Connections."""
RATES = (0.3, 0.6)
"""Of the measured peak, at a constant rate."""
RATE_CONNECTIONS = 32
LOADS = (1_000, 10_000, 100_000)
"""Requests a second that the table answers for."""
TARGET = 0.6
"""Of the processors, as the HorizontalPodAutoscaler of k8s/base has it."""
POD_START_S = 10
"""From the autoscaler's wish to the first request: scheduling, the container, and what Convoy takes itself."""
SIMULATED_S = 10.0
GROWTH = 3


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long."""

    models: Path
    model: str
    images: Path | None
    rounds: int
    seconds: float


@dataclass
class Found:
    """Figures of all rounds: each replica as calibrated, and each check as (measured, simulated)."""

    about: dict[str, str]
    replicas: list[Replica] = field(default_factory=list)
    peaks_per_s: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    checks: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    voids: list[str] = field(default_factory=list)


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """This thread and what it starts run on that core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(plan: Plan) -> Found:
    """Raises CannotMeasure."""
    need("wrk")
    need("h2load")
    ours, theirs = _two_cores()
    model = LocalModel(plan.models, plan.model, 1)
    sizes = Sizes.of(model.shape)
    chosen = samples(model, sizes.samples, plan.images)
    found = Found(_about(plan, model, chosen))
    with tempfile.TemporaryDirectory() as name:
        bodies = Bodies(chosen, Path(name), sizes)
        for number in range(plan.rounds):
            print(f"round {number + 1} of {plan.rounds}", flush=True)
            with on_core(ours):
                batch_s = {
                    size: size / per_s for size, per_s in microbenchmark.images_per_s(model, chosen, RAW_S).items()
                }
            with (
                on_core(ours),
                convoy_process.convoy(plan.models, Path(name) / "service.log", {"CONVOY_WORKERS": "1"}) as service,
                on_core(theirs),
            ):
                (load,) = offered(service.url, _loads(plan.model), bodies)
                _round(plan, service, load, bodies.get(load.kind), batch_s, found)
    return found


def _two_cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise CannotMeasure("A replica and the load generator need a core each; this machine has one.")
    return cores[0], cores[1]


def _loads(model: str) -> list[Load]:
    return [load for load in convoy_loads(model, 1) if load.name == "image"]


def _round(
    plan: Plan, service: convoy_process.Service, load: Load, body: Body, batch_s: dict[int, float], found: Found
) -> None:
    url = service.url + load.path
    replica, peak = _calibrated(plan, service, url, body, batch_s)
    found.replicas.append(replica)
    found.peaks_per_s.append(peak.requests_per_s)
    found.memory_bytes.append(processes.resident_bytes(service.pid))
    found.ready_s.append(service.ready_s)
    for connections in CHECKED:
        fired = wrk(url, body, connections, plan.seconds)
        _compare(found, f"{connections} connections", fired, in_turn(replica, connections, SIMULATED_S), True)
    for share in RATES:
        rate = share * peak.requests_per_s
        fired = constant_rate(url, body, rate, RATE_CONNECTIONS, plan.seconds)
        _compare(found, f"{share:.0%} of the peak", fired, at_rate(replica, rate, SIMULATED_S), False)


def _calibrated(
    plan: Plan, service: convoy_process.Service, url: str, body: Body, batch_s: dict[int, float]
) -> tuple[Replica, Fired]:
    """A replica with what a request costs it: of a full one, its processor time less that of the model's runs; of a
    lonely one, the latency that is neither."""
    alone = wrk(url, body, 1, plan.seconds)
    used_s, runs, images = processes.cpu_s(service.pid), *_batches(service.url)
    full = wrk(url, body, CALIBRATING, plan.seconds)
    used_s, runs, images = (
        after - before
        for after, before in zip(
            (processes.cpu_s(service.pid), *_batches(service.url)), (used_s, runs, images), strict=True
        )
    )
    if full.failed or alone.failed or not images:
        raise CannotMeasure("A request failed while the simulation was calibrated; see the service's log.")
    model_s = Replica(0.0, batch_s).run_s(round(images / runs)) * runs
    if used_s <= model_s:
        raise CannotMeasure("The model alone took more time than the whole service: this machine is busy. Wait for it.")
    door_s = (used_s - model_s) / images
    outside_s = max(0.0, alone.p50_ms / 1000 - door_s - batch_s[1])
    return Replica(door_s, batch_s, outside_s, max_batch_size=max(batch_s)), full


def _batches(url: str) -> tuple[float, float]:
    """Runs of all models so far, and the images in them."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    totals: dict[str, float] = defaultdict(float)
    for family in families:
        for sample in family.samples:
            totals[sample.name] += sample.value
    return totals["convoy_batch_images_count"], totals["convoy_batch_images_sum"]


def _compare(found: Found, name: str, fired: Fired, simulated: Simulated, rate_is_free: bool) -> None:
    if fired.failed or fired.missing:
        found.voids.append(f"{name}: {fired.failed} failed, {fired.missing} missing")
        return
    if rate_is_free:
        found.checks[f"{name}: requests/s"].append((fired.requests_per_s, simulated.answered_per_s))
    found.checks[f"{name}: p50 ms"].append((fired.p50_ms, simulated.p50_ms))
    found.checks[f"{name}: p99 ms"].append((fired.p99_ms, simulated.p99_ms))


def _about(plan: Plan, model: LocalModel, chosen: Samples) -> dict[str, str]:
    changed = convoy_process.own_settings()
    return machine_info.describe() | {
        "model": f"{model.name} version {model.folder.version}, input {'x'.join(map(str, model.shape))}",
        "images": chosen.source,
        "replica": f"1 worker on 1 core, settings as shipped{' but ' * bool(changed)}{', '.join(changed)}",
        "rounds": f"{plan.rounds}, loads of {plan.seconds:g} s, interleaved; medians",
    }


def written(found: Found, command: str) -> str:
    """The section of the README."""
    replica = sorted(found.replicas, key=Replica.peak_per_s)[len(found.replicas) // 2]
    per_core = median(found.peaks_per_s)
    return "\n\n".join(
        [
            markdown.about(found.about, command),
            f"One core answers {per_core:,.0f} images a second, each in a request of its own "
            f"({1e6 * replica.door_s:.0f} us for HTTP, decoding and answering, {1e6 * replica.run_s(32) / 32:.0f} us "
            f"for the model in full batches). A replica of one core holds {median(found.memory_bytes) / 2**20:.0f} MiB "
            f"and is ready {median(found.ready_s):.1f} s after its start.",
            f"Replicas of one core at {TARGET:.0%} use, simulated:",
            _replicas(replica),
            f"When the load grows {GROWTH}-fold at once (the autoscaler's look every 15 s, {POD_START_S} s until a pod "
            "works), simulated:",
            _growth(replica),
            "Measured here, and what the simulation says, calibrated by 1 and "
            f"{CALIBRATING} connections of the same round:",
            _checks(found.checks),
        ]
    )


def _replicas(replica: Replica) -> str:
    rows = []
    per_replica = TARGET * replica.peak_per_s()
    for load in LOADS:
        count = math.ceil(load / per_replica)
        got = at_rate(replica, load / count, SIMULATED_S)
        hours = count / 3600 / load * 1e9
        row = [f"{load:,}", f"{count:,}", f"{got.utilisation:.0%}", f"{got.p50_ms:.1f}", f"{got.p99_ms:.1f}"]
        rows.append([*row, f"{hours:,.0f}"])
    return markdown.table(["requests/s", "replicas", "use", "p50 ms", "p99 ms", "core hours per 10^9 images"], rows)


def _growth(replica: Replica) -> str:
    rows = []
    for load in LOADS:
        before = math.ceil(load / GROWTH / (TARGET * replica.peak_per_s()))
        got = scale(
            replica.peak_per_s(),
            before,
            lambda _, load=load: load,
            seconds=1800,
            target=TARGET,
            most=10**6,
            start_s=POD_START_S,
            queue=replica.max_queue_images,
        )
        rows.append([f"{load:,}", f"{before:,}", f"{got.replicas:,}", f"{got.settled_s:.0f}", f"{got.refused:.1%}"])
    head = ["requests/s", "replicas before", "at most", "seconds until all are answered at once"]
    return markdown.table([*head, "refused in half an hour"], rows)


def _checks(checks: dict[str, list[tuple[float, float]]]) -> str:
    rows = []
    for name, pairs in checks.items():
        measured, simulated = (median(pair[side] for pair in pairs) for side in (0, 1))
        error = median(theirs / ours - 1 for ours, theirs in pairs)
        rows.append([name, f"{measured:,.1f}", f"{simulated:,.1f}", f"{error:+.0%}"])
    return markdown.table(["load and figure", "measured", "simulated", "error"], rows)
