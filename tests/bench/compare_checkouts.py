"""Compares the speed of several checkouts of Convoy, which run at the same time and are loaded alternately for some
seconds each.

A machine's speed varies from minute to minute by more than most code changes gain, but not within a few seconds. The
result is therefore the median of the ratios within each round, not the ratio of two medians.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from tests.bench import convoy_process
from tests.bench.decoding.phone_photos import write_photos
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import LoadResult, require_tool, wrk
from tests.bench.local_model import LocalModel
from tests.bench.request_bodies import Bodies, Sizes
from tests.bench.sample_images import load_samples
from tests.bench.throughput import format_result, is_void, median_result, void_reason
from tests.bench.workloads import Workload, convoy_workloads, supported_workloads

WARM_UP_S = 1.0
MAX_PHOTOS = 10
"""Number of photos for --photo-size: one per single-image body."""
HEAD = ["load", "checkout", "requests/s", "ratio", "quartiles", "p50 ms", "p99 ms"]


@dataclass(frozen=True)
class Plan:
    """The options of a comparison. Each checkout has a .venv. The first checkout is the baseline of the others."""

    checkouts: tuple[Path, ...]
    models: Path | None
    """Folder of models. None: each checkout serves its own, because older checkouts may not read newer manifests."""
    model: str
    images: Path | None
    workers: int
    rounds: int
    seconds: float
    connections: int
    only: tuple[str, ...]
    """Names of loads. Empty: all loads."""
    photo_size: tuple[int, int] | None = None
    """Width and height of the images to send. None: the original sizes."""


class Ratio(NamedTuple):
    """Requests/s relative to the first checkout in the same round: median and quartiles."""

    low: float
    median: float
    high: float


@dataclass
class CheckoutResults:
    """Load results by load and checkout, in the order of the rounds."""

    runs: dict[str, list[list[LoadResult]]] = field(default_factory=dict)

    def ratio(self, load: str, checkout: int) -> Ratio:
        """Returns the ratio of a checkout to the first checkout. Needs at least two rounds."""
        pairs = zip(self.runs[load][checkout], self.runs[load][0], strict=True)
        low, mid, high = quantiles(
            [one.requests_per_s / first.requests_per_s for one, first in pairs], method="inclusive"
        )
        return Ratio(low, mid, high)

    def voids(self) -> list[str]:
        runs_by_checkout = [
            (load, number, runs) for load, by_checkout in self.runs.items() for number, runs in enumerate(by_checkout)
        ]
        return [
            f"{load} at checkout {number}: {void_reason(runs)}"
            for load, number, runs in runs_by_checkout
            if is_void(runs)
        ]


def measure(plan: Plan, progress: Callable[[str], None]) -> CheckoutResults:
    """Measures all checkouts. Raises CannotMeasure; loads with failed requests are kept and marked as void."""
    require_tool("wrk")
    if plan.rounds < 2:
        raise CannotMeasure("Quartiles need at least --rounds 2.")
    model = LocalModel(plan.models or plan.checkouts[-1] / "models", plan.model, 1)
    sizes = Sizes.of(model.shape)
    results = CheckoutResults()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        bodies = Bodies(load_samples(model, sizes.samples, _photos(plan, folder)), folder, sizes)
        urls = [_start(plan, checkout, folder / f"log{n}", stack) for n, checkout in enumerate(plan.checkouts)]
        for load in _loads(plan, urls, bodies, sizes.batch):
            progress(load.name)
            results.runs[load.name] = _interleave(plan, urls, load, bodies, progress)
    return results


def _start(plan: Plan, checkout: Path, log: Path, stack: ExitStack) -> str:
    command = (checkout.resolve() / ".venv/bin/convoy", "serve")
    # Uses the checkout's own code even if several share one .venv.
    settings = convoy_process.bench_settings(plan.workers) | {"PYTHONPATH": str(checkout.resolve())}
    models = (plan.models or checkout / "models").resolve()
    return stack.enter_context(convoy_process.run_convoy(models, log, settings, command)).url


def _photos(plan: Plan, folder: Path) -> Path | None:
    """Returns the folder of images to send, or None for the default images."""
    if plan.photo_size is None:
        return plan.images
    if plan.images is None:
        raise CannotMeasure("--photo-size needs --images, a folder of photos.")
    photos = folder / "photos"
    photos.mkdir()
    write_photos(sorted(plan.images.iterdir())[:MAX_PHOTOS], plan.photo_size, photos)
    return photos


def _loads(plan: Plan, urls: Sequence[str], bodies: Bodies, batch: int) -> list[Workload]:
    """Returns the loads that all checkouts answer correctly. Raises CannotMeasure for an unknown name."""
    workloads = convoy_workloads(plan.model, batch)
    if unknown := set(plan.only) - {load.name for load in workloads}:
        raise CannotMeasure(
            f"There is no load '{unknown.pop()}'; the loads are {', '.join(load.name for load in workloads)}."
        )
    loads = [load for load in workloads if not plan.only or load.name in plan.only]
    for url in urls:
        loads = supported_workloads(url, loads, bodies)
    return loads


def _interleave(
    plan: Plan, urls: Sequence[str], load: Workload, bodies: Bodies, progress: Callable[[str], None]
) -> list[list[LoadResult]]:
    body = bodies.get(load.kind)
    for url in urls:
        wrk(url + load.path, body, plan.connections, WARM_UP_S)
    runs: list[list[LoadResult]] = [[] for _ in urls]
    for number in range(plan.rounds):
        for at in range(len(urls)):
            turn = (at + number) % len(urls)  # every checkout is first in some round
            runs[turn].append(wrk(urls[turn] + load.path, body, plan.connections, plan.seconds))
            progress(f"  {plan.checkouts[turn]}: {format_result(runs[turn][-1])}")
    return runs


def rows(results: CheckoutResults, plan: Plan) -> list[list[str]]:
    """Returns the rows of a table with the columns HEAD."""
    table_rows = []
    for load, by_checkout in results.runs.items():
        for number, runs in enumerate(by_checkout):
            cells = (
                ["void"] * 5
                if is_void(runs) or is_void(by_checkout[0])
                else _figures(median_result(runs), results.ratio(load, number))
            )
            table_rows.append([load, str(plan.checkouts[number]), *cells])
    return table_rows


def _figures(result: LoadResult, ratio: Ratio) -> list[str]:
    ratios = [f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}"]
    return [f"{result.requests_per_s:,.0f}", *ratios, f"{result.p50_ms:.2f}", f"{result.p99_ms:.2f}"]
