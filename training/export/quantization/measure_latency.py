"""Measures the latency of several graphs alternately, so that a slow period of the machine affects all of them
equally."""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np

from service.inference.providers import ON_CPU, Placement
from service.inference.session import Session
from service.model_store.manifest import Input

LATENCY_BATCH_SIZES = (1, 8, 32)
DEFAULT_DURATION_S = 1.5
"""Minimum duration per batch size, excluding the first runs."""
MIN_TURNS = 15
TURN_S = 0.004
"""Approximate duration of a graph's turn."""


def microseconds_per_image(
    graphs: Mapping[str, Path],
    model_input: Input,
    classes: int,
    threads: int,
    placement: Placement = ON_CPU,
    duration_s: float = DEFAULT_DURATION_S,
) -> dict[str, dict[int, float]]:
    """Returns the median over the turns, by graph and batch size. Raises BrokenVersion if a graph cannot be loaded."""
    sessions = {name: Session(path, model_input, classes, threads, placement) for name, path in graphs.items()}
    latencies: dict[str, dict[int, float]] = {name: {} for name in graphs}
    for size in LATENCY_BATCH_SIZES:
        batch = np.random.default_rng(0).integers(0, 256, (size, *model_input.shape), np.uint8)
        runs = {name: _runs_per_turn(session, batch) for name, session in sessions.items()}
        turns: dict[str, list[float]] = {name: [] for name in graphs}
        end_s = time.perf_counter() + duration_s
        while time.perf_counter() < end_s or len(next(iter(turns.values()))) < MIN_TURNS:
            for name, session in sessions.items():
                turns[name].append(_turn_s(session, batch, runs[name]))
        for name, timings in turns.items():
            latencies[name][size] = round(median(timings) / size * 1e6, 2)
    return latencies


def _runs_per_turn(session: Session, batch: np.ndarray) -> int:
    session.run(batch)
    return max(1, round(TURN_S / max(_turn_s(session, batch, 3), 1e-6)))


def _turn_s(session: Session, batch: np.ndarray, runs: int) -> float:
    """Returns the mean seconds per run over a turn."""
    started_s = time.perf_counter()
    for _ in range(runs):
        session.run(batch)
    return (time.perf_counter() - started_s) / runs
