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
from tests.bench.load_generators.saturation import OK, Outcome, flood, outcome
from tests.bench.local_model import LocalModel
from tests.bench.processes import cpu_s
from tests.bench.request_bodies import Bodies, Body, Sizes
from tests.bench.sample_images import samples
from tests.bench.workloads import Load, convoy_loads, offered

Say = Callable[[str], None]

FACTORS = (1, 2, 4)
PEAK_CONNECTIONS = (16, 32, 64)
WARM_UP = 0.25  # of each load; what it does to begin with does not count
LEAST_PER_S = 4  # requests of one connection
AT_REST = 100  # probes
SETTLED = 5  # probes in a row that are as fast as at rest
RECOVERY_PATIENCE_S = 30.0


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
    """One factor in one round: the service right before at its peak, under the flood, and after it."""

    peak: Outcome
    flood: Outcome
    peak_cpu_us: float
    """Processor time of the service for one good answer."""
    flood_cpu_us: float
    """The same, all that it spent on refusals included."""
    recovery_s: float


@dataclass
class Overloaded:
    """Everything of one run."""

    about: dict[str, str]
    steps: dict[tuple[str, int], list[Step]] = field(default_factory=lambda: defaultdict(list))
    """By load and factor, one a round."""

    def kept(self, load: str, factor: int) -> float:
        """Goodput at that factor over the peak right before it: the median, for other work on the machine passes."""
        return median(step.flood.goodput_per_s / step.peak.goodput_per_s for step in self.steps[load, factor])

    def voids(self) -> list[str]:
        """What is no overload behaviour but a failure: answers other than 200 and 429, or none."""
        return [
            f"{load} at {factor}x: {sum(step.flood.other for step in steps)} failed"
            for (load, factor), steps in self.steps.items()
            if any(step.flood.other for step in steps)
        ]


def measure(plan: Plan, say: Say) -> Overloaded:
    """Raises CannotMeasure."""
    model = LocalModel(plan.models, plan.model, 1)
    sizes = Sizes.of(model.shape)
    chosen = samples(model, sizes.samples, plan.images)
    found = Overloaded(_about(plan, model, chosen.source))
    with tempfile.TemporaryDirectory() as name:
        bodies = Bodies(chosen, Path(name), sizes)
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            with convoy_process.convoy(plan.models, Path(name) / "service.log", _settings(plan)) as service:
                for load in offered(service.url, _loads(plan, sizes.batch), bodies):
                    _round(plan, load, service, bodies.get(load.kind), found, say)
    return found


def _loads(plan: Plan, batch: int) -> list[Load]:
    """A tiny request, whose cost is HTTP; a large one, whose cost is decoding; and one that is mostly the model."""
    wanted = plan.only or ("image", f"images x{batch} (form)", f"v2 binary x{batch}")
    return [load for load in convoy_loads(plan.model, batch) if load.name in wanted]


def _round(plan: Plan, load: Load, service: convoy_process.Service, body: Body, found: Overloaded, say: Say) -> None:
    url = service.url + load.path
    found_with = {count: _fired(url, body, count, plan.seconds).goodput_per_s for count in PEAK_CONNECTIONS}
    best = max(PEAK_CONNECTIONS, key=lambda count: found_with[count])
    for factor in FACTORS:
        rest_s = at_rest(url, body)
        peak, peak_cpu_us = _clocked(service, url, body, best, plan.seconds)
        rate = factor * peak.goodput_per_s
        flood, flood_cpu_us = _clocked(service, url, body, connections_for(rate, plan.connections), plan.seconds, rate)
        step = Step(peak, flood, peak_cpu_us, flood_cpu_us, recovery(url, body, rest_s))
        found.steps[load.name, factor].append(step)
        say(
            f"  {load.name}, {factor}x: {flood.goodput_per_s:.0f}/s good of {peak.goodput_per_s:.0f} at the peak, "
            f"{flood.refused_per_s:.0f}/s refused, p99 of accepted {flood.p99_ms:.0f} ms, "
            f"recovered in {step.recovery_s:.2f} s"
        )


def _clocked(
    service: convoy_process.Service,
    url: str,
    body: Body,
    connections: int,
    seconds: float,
    requests_per_s: float | None = None,
) -> tuple[Outcome, float]:
    """What became of the load, and microseconds of processor time for each good answer."""
    before_s = cpu_s(service.pid)
    sent = flood(url, body, connections, seconds, requests_per_s)
    good = sum(one.status == OK for one in sent)
    return outcome(sent, WARM_UP * seconds, seconds), (cpu_s(service.pid) - before_s) / max(1, good) * 1e6


def _fired(url: str, body: Body, connections: int, seconds: float) -> Outcome:
    return outcome(flood(url, body, connections, seconds), WARM_UP * seconds, seconds)


def connections_for(requests_per_s: float, most: int) -> int:
    """As many as send a few requests a second each: all of them begin with one at once, which is no constant rate."""
    return max(min(most, round(requests_per_s / LEAST_PER_S)), min(most, PEAK_CONNECTIONS[-1]))


def at_rest(url: str, body: Body) -> float:
    """Seconds that all but the slowest of a few lonely requests take."""
    took = sorted(_probe(url, body) for _ in range(AT_REST))
    return took[int(0.95 * AT_REST)]


def recovery(url: str, body: Body, rest_s: float) -> float:
    """Seconds from now until requests are answered as at rest again; the patience where they never are."""
    began_s = time.monotonic()
    settled, since_s = 0, 0.0
    while settled < SETTLED and time.monotonic() - began_s < RECOVERY_PATIENCE_S:
        asked_s = time.monotonic()
        good = _probe(url, body) <= 2 * rest_s
        since_s = asked_s - began_s if good and not settled else since_s
        settled = settled + 1 if good else 0
    return since_s if settled else RECOVERY_PATIENCE_S


def _probe(url: str, body: Body) -> float:
    """Seconds of one request; endless when it is refused."""
    request = urllib.request.Request(url, body.file(0).read_bytes(), body.headers())
    started_s = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=RECOVERY_PATIENCE_S) as reply:
            reply.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return float("inf")
    return time.monotonic() - started_s


def _settings(plan: Plan) -> dict[str, str]:
    return {"CONVOY_WORKERS": str(plan.workers)}


def _about(plan: Plan, model: LocalModel, images: str) -> dict[str, str]:
    changed = convoy_process.own_settings()
    return machine_info.describe() | {
        "model": f"{model.name} version {model.folder.version}, input {'x'.join(map(str, model.shape))}",
        "images": images,
        "service": f"{plan.workers} worker(s), settings as shipped{' but ' * bool(changed)}{', '.join(changed)}",
        "load": f"up to {plan.connections} connections, {plan.seconds:g} s each",
        "rounds": f"{plan.rounds}; medians",
    }
