"""Runs all parts of `make bench-overload`."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import convoy_process, machine_info
from tests.bench.overload import excess, large_bodies, stop
from tests.bench.overload.excess import ExcessResults
from tests.bench.overload.large_bodies import Interference
from tests.bench.overload.scenarios import Progress, fast_scenario, slow_scenario
from tests.bench.overload.stop import Stop

PARTS = ("excess", "stop", "bodies")


@dataclass(frozen=True)
class Plan:
    """The options of a run."""

    models: Path
    images: Path | None
    workers: int
    rounds: int
    seconds: float
    """Duration of each load in the parts `excess` and `bodies`. The part `stop` sets its own durations."""
    parts: tuple[str, ...] = PARTS


@dataclass
class OverloadResults:
    """The results of one run."""

    environment: dict[str, str]
    excess: ExcessResults = field(default_factory=ExcessResults)
    stops: list[Stop] = field(default_factory=list)
    interferences: list[Interference] = field(default_factory=list)

    def voids(self) -> list[str]:
        """Returns loads with failed requests, and stops that lost accepted requests."""
        lost = [f"{one.lost} lost in a stop with timeout {one.timeout_s:g} s" for one in self.stops if one.lost]
        return self.excess.voids() + lost


def measure(plan: Plan, progress: Progress) -> OverloadResults:
    """Measures the parts of the plan. Raises CannotMeasure."""
    results = OverloadResults(_environment(plan))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if {"excess", "stop"} & set(plan.parts):
            progress("making the graphs")
            slow = slow_scenario(plan.images, work)
        if "excess" in plan.parts:
            fast = fast_scenario(plan.models, work)
            results.excess = excess.measure([fast, slow], plan.workers, plan.rounds, plan.seconds, work, progress)
        if "stop" in plan.parts:
            results.stops = stop.measure(slow, work, progress)
        if "bodies" in plan.parts:
            results.interferences = large_bodies.measure(plan.models, plan.workers, plan.seconds, work, progress)
    return results


def _environment(plan: Plan) -> dict[str, str]:
    changes = convoy_process.caller_settings()
    return machine_info.describe() | {
        "models": "mnist-lenet5, and ResNet-50 with random weights, 224x224x3, float32",
        "service": f"{plan.workers} worker(s), settings as shipped{' but ' * bool(changes)}{', '.join(changes)}",
        "load": f"at least {plan.seconds:g} s each",
        "rounds": f"{plan.rounds}; medians",
    }
