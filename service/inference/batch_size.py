"""Measures the run times of a loaded graph for each batch size, and chooses the batch sizes within a latency budget.
Independent of settings, versions and requests.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.inference.providers import DEFAULT_MAX_BATCH_SIZE, batch_buckets
from service.inference.session import Session, WarmUpSession

MAX_MEASURE_S = 1.0  # for all sizes of one version together, without the first run of each size
MIN_MEASURE_MS = 10.0  # per size, unless the fastest run is known earlier
MIN_RUNS = 2  # per size
# The fastest run counts as known after this many consecutive runs that were not 1 % faster. Without this limit,
# measuring takes nine tenths of the time to load a graph that runs in microseconds.
MAX_STEADY_RUNS = 20
STEADY_RATIO = 0.99

# If a run of the default batch is shorter than this, its fixed cost outweighs the cost of its images, and larger
# batches increase the throughput.
FAST_RUN_MS = 1.0
FAST_BATCH_SIZE = 64  # 5 to 7 % more throughput than 32, for requests of 64 MNIST images
# 3 to 6 % more throughput than 64 while the queue is deep. Otherwise it would only delay the first requests.
FAST_DEEP_QUEUE_BATCH_SIZE = 128


class BatchSizes(NamedTuple):
    """Maximum images per batch: `normal`, and `max` while the queue is deep."""

    normal: int
    max: int


def measure_batch_ms(
    session: Session,
    input_shape: tuple[int, int, int],
    max_batch_size: int,
    *,
    may_grow: bool,
    timeout_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, float]:
    """Warms the graph up, and returns the milliseconds of a run for each batch size: 1, 2, 4 and so on up to
    `max_batch_size`.

    `max_batch_size` 0 means the default size. With `may_grow`, a fast graph is measured at larger sizes too. Every
    size is warmed up, even if it is slow. Raises BrokenVersion if a run fails or takes longer than `timeout_s`.
    """
    max_batch_size = max_batch_size or DEFAULT_MAX_BATCH_SIZE
    batch_ms = _measure_sizes(session, input_shape, batch_buckets(max_batch_size), timeout_s, clock)
    if may_grow and batch_ms[max_batch_size] < FAST_RUN_MS:
        sizes = (FAST_BATCH_SIZE, FAST_DEEP_QUEUE_BATCH_SIZE)
        batch_ms |= _measure_sizes(session, input_shape, sizes, timeout_s, clock)
    return batch_ms


def choose_batch_sizes(batch_ms: dict[int, float], latency_budget_ms: float, *, is_configured: bool) -> BatchSizes:
    """Returns the largest measured size whose run takes at most `latency_budget_ms`, or 1 if no size does.

    A budget of 0 allows every size. The normal size is the same if the size is configured; otherwise it is at most
    FAST_BATCH_SIZE.
    """
    within = (size for size, ms in batch_ms.items() if not latency_budget_ms or ms <= latency_budget_ms)
    largest = max(within, default=1)
    return BatchSizes(normal=largest if is_configured else min(largest, FAST_BATCH_SIZE), max=largest)


def _measure_sizes(
    session: Session,
    input_shape: tuple[int, int, int],
    sizes: Sequence[int],
    timeout_s: float,
    clock: Callable[[], float],
) -> dict[int, float]:
    batch_ms: dict[int, float] = {}
    end_s = clock() + MAX_MEASURE_S
    # All sizes in one call: each call starts a thread, which took a third of the time to load a small graph.
    session.warm_up(list(sizes), timeout_s)
    with closing(WarmUpSession(session, timeout_s)) as warm_up_session:
        for size in sizes:
            batch_ms[size] = _min_run_ms(warm_up_session, np.zeros((size, *input_shape), np.uint8), end_s, clock)
    return batch_ms


def _min_run_ms(session: WarmUpSession, batch: NDArray[np.uint8], end_s: float, clock: Callable[[], float]) -> float:
    """Returns the milliseconds of the fastest run. Runs at least once, and starts no further run after `end_s`."""
    fastest_ms, total_ms, runs, steady_runs = math.inf, 0.0, 0, 0
    while not runs or (clock() < end_s and (runs < MIN_RUNS or total_ms < MIN_MEASURE_MS)):
        started_s = clock()
        session.run(batch)
        run_ms = (clock() - started_s) * 1000
        steady_runs = 0 if run_ms < STEADY_RATIO * fastest_ms else steady_runs + 1
        fastest_ms, total_ms, runs = min(fastest_ms, run_ms), total_ms + run_ms, runs + 1
        if steady_runs == MAX_STEADY_RUNS:
            break
    return round(fastest_ms, 3)
