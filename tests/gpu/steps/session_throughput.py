"""ResNet-50 under onnxruntime alone: by batch and precision, plain, with bound tensors, and as a CUDA graph."""

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from tests.gpu import sessions
from tests.gpu.check_plan import Plan
from tests.gpu.check_results import Add, Row
from tests.gpu.steps import model_zoo

PLAIN, BOUND, GRAPH = "plain", "bound tensors", "CUDA graph"
WARM_UP = 3
PAYS = 1.05


def measure(plan: Plan, add: Add) -> None:
    for precision in ("float32", "float16"):
        best: dict[str, list[float]] = defaultdict(list)
        for batch in plan.sizes.batches:
            runs = _runs(plan, precision, batch, add)
            speeds = images_per_s(runs, batch, plan.sizes.rounds, plan.sizes.round_s)
            for way, speed in speeds.items():
                add(Row(f"{plan.sizes.network}, {precision}, batch {batch}, {way}", f"{speed:,.0f} images/s"))
                best[way].append(speed / speeds[PLAIN])
        for way in (BOUND, GRAPH):
            if best[way]:
                ratios = ", ".join(f"{ratio:.2f}" for ratio in best[way])
                add(Row(f"{way} over plain, {precision}", f"{ratios} times, by batch", "", None))


def images_per_s(runs: dict[str, Callable[[], Any]], batch: int, rounds: int, round_s: float) -> dict[str, float]:
    """Medians over rounds in which each way has its turn, so that a slow moment hits all alike."""
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for way, run in runs.items():
            found[way].append(batch / _seconds(run, round_s))
    return {way: median(speeds) for way, speeds in found.items()}


def _runs(plan: Plan, precision: str, batch: int, add: Add) -> dict[str, Callable[[], Any]]:
    """Each way that works here; of one that does not a row says why."""
    graph = model_zoo.graph(plan, plan.sizes.network, precision)
    manifest = model_zoo.manifest(plan, plan.sizes.network)
    images = sessions.noise(manifest.input.shape, batch)
    session = sessions.open_session(plan, graph)
    runs: dict[str, Callable[[], Any]] = {PLAIN: sessions.plain(session, images)}

    def as_graph() -> Callable[[], Any]:
        captured = sessions.open_session(plan, graph, cuda_graph=True, nothing_on_cpu=True)
        return sessions.bound(plan, captured, images, manifest.classes)

    ways = {BOUND: lambda: sessions.bound(plan, session, images, manifest.classes)}
    for way, make in (ways | ({GRAPH: as_graph} if plan.provider == "cuda" else {})).items():
        try:
            run = make()
            run()
        except Exception as error:  # a way that fails here must not take the others with it
            add(Row(f"{plan.sizes.network}, {precision}, batch {batch}, {way}", f"failed: {str(error)[:200]}"))
        else:
            runs[way] = run
    return runs


def _seconds(run: Callable[[], Any], least_s: float) -> float:
    """The median of one call's time, over so long and at least three calls."""
    took: list[float] = []
    while sum(took) < least_s or len(took) < 3:
        started_s = time.perf_counter()
        run()
        took.append(time.perf_counter() - started_s)
    return median(took)
