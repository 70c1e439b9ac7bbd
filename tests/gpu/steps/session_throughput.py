"""Measures ResNet-50 with onnxruntime alone by batch and precision: plain, with bound tensors, and as a CUDA graph."""

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
        ratios_by_way: dict[str, list[float]] = defaultdict(list)
        for batch in plan.sizes.batches:
            runs = _runs(plan, precision, batch, add)
            speeds = images_per_s(runs, batch, plan.sizes.rounds, plan.sizes.round_s)
            for method, speed in speeds.items():
                add(Row(f"{plan.sizes.network}, {precision}, batch {batch}, {method}", f"{speed:,.0f} images/s"))
                ratios_by_way[method].append(speed / speeds[PLAIN])
        for method in (BOUND, GRAPH):
            if ratios_by_way[method]:
                ratios = ", ".join(f"{ratio:.2f}" for ratio in ratios_by_way[method])
                add(Row(f"{method} over plain, {precision}", f"{ratios} times, by batch", "", None))


def images_per_s(runs: dict[str, Callable[[], Any]], batch: int, rounds: int, round_s: float) -> dict[str, float]:
    """Returns medians over rounds in which all methods take turns, so that a slow period affects all equally."""
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    speeds_by_way: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for method, run in runs.items():
            speeds_by_way[method].append(batch / _seconds(run, round_s))
    return {method: median(speeds) for method, speeds in speeds_by_way.items()}


def _runs(plan: Plan, precision: str, batch: int, add: Add) -> dict[str, Callable[[], Any]]:
    """Returns the methods that work here, and adds a row with the reason for each that does not."""
    graph = model_zoo.graph(plan, plan.sizes.network, precision)
    manifest = model_zoo.manifest(plan, plan.sizes.network)
    images = sessions.random_images(manifest.input.shape, batch)
    session = sessions.open_session(plan, graph)
    runs: dict[str, Callable[[], Any]] = {PLAIN: sessions.run_plain(session, images)}

    def as_graph() -> Callable[[], Any]:
        captured = sessions.open_session(plan, graph, cuda_graph=True, forbid_cpu_fallback=True)
        return sessions.run_bound(plan, captured, images, manifest.classes)

    optional_methods = {BOUND: lambda: sessions.run_bound(plan, session, images, manifest.classes)}
    for method, prepare_run in (optional_methods | ({GRAPH: as_graph} if plan.provider == "cuda" else {})).items():
        try:
            run = prepare_run()
            run()
        except Exception as error:  # a failed method must not stop the others
            add(Row(f"{plan.sizes.network}, {precision}, batch {batch}, {method}", f"failed: {str(error)[:200]}"))
        else:
            runs[method] = run
    return runs


def _seconds(run: Callable[[], Any], min_s: float) -> float:
    """Returns the median duration of a call, over at least `min_s` and at least three calls."""
    durations_s: list[float] = []
    while sum(durations_s) < min_s or len(durations_s) < 3:
        started_s = time.perf_counter()
        run()
        durations_s.append(time.perf_counter() - started_s)
    return median(durations_s)
