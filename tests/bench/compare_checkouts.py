"""Does a change pay? Two checkouts of Convoy or more, all up at once, are loaded in turn for seconds each.

From one minute to the next a machine changes by more than most changes are worth; within a few seconds it does not. So
what counts is the median of the ratios within each round, not the ratio of two medians.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from tests.bench import convoy_process
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import Fired, need, wrk
from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.sample_images import samples
from tests.bench.throughput import line, middle, void, why_void
from tests.bench.workloads import Load, convoy_loads, offered

WARM_UP_S = 1.0
HEAD = ["load", "checkout", "requests/s", "ratio", "quartiles", "p50 ms", "p99 ms"]


@dataclass(frozen=True)
class Plan:
    """What to compare, and how long. Each checkout has its own .venv; the others are compared with the first."""

    checkouts: tuple[Path, ...]
    models: Path
    model: str
    images: Path | None
    workers: int
    rounds: int
    seconds: float
    connections: int
    only: tuple[str, ...]
    """Names of loads; empty: all."""


class Ratio(NamedTuple):
    """Of requests/s to the first checkout's in the same round: the median, and the quartiles about it."""

    low: float
    median: float
    high: float


@dataclass
class Paired:
    """What was fired at each checkout, by load, in the order of the rounds."""

    fired: dict[str, list[list[Fired]]] = field(default_factory=dict)

    def ratio(self, load: str, checkout: int) -> Ratio:
        """Needs two rounds."""
        both = zip(self.fired[load][checkout], self.fired[load][0], strict=True)
        low, mid, high = quantiles(
            [one.requests_per_s / first.requests_per_s for one, first in both], method="inclusive"
        )
        return Ratio(low, mid, high)

    def voids(self) -> list[str]:
        every = [(load, number, fired) for load, all_ in self.fired.items() for number, fired in enumerate(all_)]
        return [f"{load} at checkout {number}: {why_void(fired)}" for load, number, fired in every if void(fired)]


def measure(plan: Plan, say: Callable[[str], None]) -> Paired:
    """Raises CannotMeasure; failed requests are kept as figures that are void."""
    need("wrk")
    if plan.rounds < 2:
        raise CannotMeasure("A ratio with its quartiles needs --rounds 2 or more.")
    model = LocalModel(plan.models, plan.model, 1)
    sizes = Sizes.of(model.shape)
    found = Paired()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        bodies = Bodies(samples(model, sizes.samples, plan.images), folder, sizes)
        urls = [_started(plan, checkout, folder / f"log{n}", stack) for n, checkout in enumerate(plan.checkouts)]
        for load in _loads(plan, urls, bodies, sizes.batch):
            say(load.name)
            found.fired[load.name] = _in_turn(plan, urls, load, bodies, say)
    return found


def _started(plan: Plan, checkout: Path, log: Path, stack: ExitStack) -> str:
    command = (checkout.resolve() / ".venv/bin/convoy", "serve")
    settings = convoy_process.bench_settings(plan.workers)
    return stack.enter_context(convoy_process.convoy(plan.models.resolve(), log, settings, command)).url


def _loads(plan: Plan, urls: Sequence[str], bodies: Bodies, batch: int) -> list[Load]:
    """Those that all checkouts answer, and rightly. Raises CannotMeasure for a name that is none."""
    every = convoy_loads(plan.model, batch)
    if unknown := set(plan.only) - {load.name for load in every}:
        raise CannotMeasure(f"There is no load '{unknown.pop()}'; there are {', '.join(load.name for load in every)}.")
    loads = [load for load in every if not plan.only or load.name in plan.only]
    for url in urls:
        loads = offered(url, loads, bodies)
    return loads


def _in_turn(
    plan: Plan, urls: Sequence[str], load: Load, bodies: Bodies, say: Callable[[str], None]
) -> list[list[Fired]]:
    body = bodies.get(load.kind)
    for url in urls:
        wrk(url + load.path, body, plan.connections, WARM_UP_S)
    fired: list[list[Fired]] = [[] for _ in urls]
    for number in range(plan.rounds):
        for at in range(len(urls)):
            turn = (at + number) % len(urls)  # nobody is always the first
            fired[turn].append(wrk(urls[turn] + load.path, body, plan.connections, plan.seconds))
            say(f"  {plan.checkouts[turn]}: {line(fired[turn][-1])}")
    return fired


def rows(found: Paired, plan: Plan) -> list[list[str]]:
    """Of a table under HEAD."""
    made = []
    for load, all_ in found.fired.items():
        for number, fired in enumerate(all_):
            cells = ["void"] * 5 if void(fired) or void(all_[0]) else _figures(middle(fired), found.ratio(load, number))
            made.append([load, str(plan.checkouts[number]), *cells])
    return made


def _figures(got: Fired, ratio: Ratio) -> list[str]:
    ratios = [f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}"]
    return [f"{got.requests_per_s:,.0f}", *ratios, f"{got.p50_ms:.2f}", f"{got.p99_ms:.2f}"]
