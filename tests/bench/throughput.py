"""`make bench`: Convoy alone. Every round measures everything once, so that a slow minute hits all figures alike."""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from service.hardware import usable_cores
from tests.bench import convoy_process, machine_info, microbenchmark
from tests.bench.load_generators.closed_loop import Fired, need, wrk
from tests.bench.load_generators.open_loop import constant_rate
from tests.bench.local_model import LocalModel
from tests.bench.processes import resident_bytes
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.sample_images import Samples, samples
from tests.bench.stage_timing import measure_stages
from tests.bench.stage_timing.measure_stages import StageTimes
from tests.bench.workloads import Load, convoy_loads, offered

RAW_S = 0.25
WARM_UP_S = 1.0
PART_OF_PEAK = 0.6
STEADY_CONNECTIONS = 32


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long."""

    models: Path
    model: str
    images: Path | None
    workers: int
    rounds: int
    seconds: float
    connections: tuple[int, ...]


@dataclass
class Measured:
    """Everything of one run, each figure once a round."""

    about: dict[str, str]
    batch: int
    raw: dict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Images/s by threads and batch size."""
    decode_us: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    resident_bytes: list[float] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    """In one request, by load; those that this Convoy offers."""
    missing: list[str] = field(default_factory=list)
    """Loads that it does not offer."""
    fired: dict[tuple[str, int], list[Fired]] = field(default_factory=lambda: defaultdict(list))
    """By load and connections."""
    steady: dict[str, list[Fired]] = field(default_factory=lambda: defaultdict(list))
    """By load, at PART_OF_PEAK of its own peak."""
    stages: dict[str, list[StageTimes]] = field(default_factory=lambda: defaultdict(list))
    stages_void: set[str] = field(default_factory=set)

    def voids(self) -> list[str]:
        """What has no figures, and why."""
        found = [f"{load} at {count} connections: {why_void(f)}" for (load, count), f in self.fired.items() if void(f)]
        found += [f"{load} at a constant rate: {why_void(f)}" for load, f in self.steady.items() if void(f)]
        return found + [
            f"stages of {load}: a request failed, or none was answered" for load in sorted(self.stages_void)
        ]


def void(fired: list[Fired]) -> bool:
    return any(one.failed or one.missing for one in fired)


def why_void(fired: list[Fired]) -> str:
    got = middle(fired)
    return f"{got.failed} failed" if got.failed else f"{got.missing} not answered in time"


def middle(fired: list[Fired]) -> Fired:
    """The median of each figure over the rounds; what failed or is missing is added up."""
    return Fired(
        requests_per_s=median(one.requests_per_s for one in fired),
        p50_ms=median(one.p50_ms for one in fired),
        p99_ms=median(one.p99_ms for one in fired),
        requests=round(median(one.requests for one in fired)),
        failed=sum(one.failed for one in fired),
        missing=sum(one.missing for one in fired),
    )


def measure(plan: Plan, say: Callable[[str], None]) -> Measured:
    """Raises CannotMeasure; failed requests are kept as figures that are void."""
    need("wrk")
    need("h2load")
    local = {threads: LocalModel(plan.models, plan.model, threads) for threads in sorted({1, usable_cores()})}
    model = local[1]
    sizes = Sizes.of(model.shape)
    chosen = samples(model, sizes.samples, plan.images)
    found = Measured(_about(plan, model, chosen), sizes.batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = Bodies(chosen, folder, sizes)
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            _raw(local, chosen, found, say)
            _peaks(plan, bodies, folder, found, say)
            _stages(plan, bodies, folder, found, say)
        for number in range(plan.rounds):
            say(f"constant rate, round {number + 1} of {plan.rounds}")
            _steady(plan, bodies, folder, found, say)
    return found


def _about(plan: Plan, model: LocalModel, chosen: Samples) -> dict[str, Any]:
    workers = plan.workers if convoy_process.has_workers() else 1
    changed = convoy_process.own_settings()
    return machine_info.describe() | {
        "model": f"{model.name} version {model.folder.version}, input {'x'.join(map(str, model.shape))}",
        "images": chosen.source,
        "service": f"{workers} worker(s), settings as shipped but for a queue of {convoy_process.QUEUE_IMAGES} images"
        + (f", and {', '.join(changed)}" if changed else ""),
        "rounds": f"{plan.rounds}, interleaved; medians",
    }


def _raw(local: dict[int, LocalModel], chosen: Samples, found: Measured, say: Callable[[str], None]) -> None:
    for threads, model in local.items():
        by_size = microbenchmark.images_per_s(model, chosen, RAW_S)
        for size, images_per_s in by_size.items():
            found.raw[threads, size].append(images_per_s)
        say(f"  onnxruntime, {threads} thread(s): {max(by_size.values()):.0f} images/s at best")
    found.decode_us.append(microbenchmark.decode_us(local[1], chosen, RAW_S))


def _peaks(plan: Plan, bodies: Bodies, folder: Path, found: Measured, say: Callable[[str], None]) -> None:
    with _service(plan, folder) as service:
        found.ready_s.append(service.ready_s)
        every = convoy_loads(plan.model, found.batch)
        loads = offered(service.url, every, bodies)
        found.missing = [load.name for load in every if load not in loads]
        for load in loads:
            found.images[load.name] = bodies.get(load.kind).images
            url, body = service.url + load.path, bodies.get(load.kind)
            wrk(url, body, max(plan.connections), WARM_UP_S)
            for connections in plan.connections:
                fired = wrk(url, body, connections, plan.seconds)
                found.fired[load.name, connections].append(fired)
                say(f"  {load.name}, {connections} connections: {line(fired)}")
        found.resident_bytes.append(resident_bytes(service.pid))


def _stages(plan: Plan, bodies: Bodies, folder: Path, found: Measured, say: Callable[[str], None]) -> None:
    loads = _offered(plan, found)
    measured = measure_stages.measure(plan.models, loads, bodies, plan.seconds, folder)
    for load, times_us in measured.items():
        found.stages[load].append(times_us)
        say(f"  {load}, CPU us: " + ", ".join(f"{stage} {us:.0f}" for stage, us in times_us.items()))
    found.stages_void |= {load.name for load in loads} - measured.keys()


def _steady(plan: Plan, bodies: Bodies, folder: Path, found: Measured, say: Callable[[str], None]) -> None:
    with _service(plan, folder) as service:
        for load in _offered(plan, found):
            peaks = [middle(found.fired[load.name, connections]).requests_per_s for connections in plan.connections]
            url, body = service.url + load.path, bodies.get(load.kind)
            wrk(url, body, STEADY_CONNECTIONS, WARM_UP_S)
            fired = constant_rate(url, body, PART_OF_PEAK * max(peaks), STEADY_CONNECTIONS, plan.seconds)
            found.steady[load.name].append(fired)
            say(f"  {load.name}: {line(fired)}")


def _offered(plan: Plan, found: Measured) -> list[Load]:
    return [load for load in convoy_loads(plan.model, found.batch) if load.name in found.images]


def _service(plan: Plan, folder: Path) -> Any:
    return convoy_process.convoy(plan.models, folder / "service.log", convoy_process.bench_settings(plan.workers))


def line(fired: Fired) -> str:
    problem = f", VOID: {why_void([fired])}" if void([fired]) else ""
    return f"{fired.requests_per_s:.0f} requests/s, p50 {fired.p50_ms:.2f} ms, p99 {fired.p99_ms:.2f} ms{problem}"
