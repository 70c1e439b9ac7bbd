"""Batch sizes: the sizes that are measured and their durations, and the size that a latency budget allows."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.inference.batch_size import (
    FAST_BATCH_SIZE,
    FAST_DEEP_QUEUE_BATCH_SIZE,
    MAX_MEASURE_S,
    MAX_STEADY_RUNS,
    BatchSizes,
    choose_batch_sizes,
    measure_batch_ms,
)

SHAPE = (8, 8, 1)
DEFAULT_SIZES = [1, 2, 4, 8, 16, 32]


class FakeSession:
    """A graph whose runs take `run_s` plus `image_s` per image on the fake clock. It counts the runs by batch size."""

    is_terminable = True

    def __init__(self, run_s: float, image_s: float = 0.0) -> None:
        self._run_s, self._image_s = run_s, image_s
        self.now_s = 0.0
        self.warmed_up: list[int] = []
        self.warm_ups = 0
        self.runs: dict[int, int] = {}

    def warm_up(self, batch_sizes: list[int], timeout_s: float) -> None:
        self.warmed_up += batch_sizes
        self.warm_ups += 1

    def run(self, images: NDArray[np.uint8], options: object) -> None:
        assert images.shape[1:] == SHAPE
        self.runs[len(images)] = self.runs.get(len(images), 0) + 1
        self.now_s += self._run_s + self._image_s * len(images)


def measured(session: FakeSession, max_batch_size: int = 0, may_grow: bool = False) -> dict[int, float]:
    return measure_batch_ms(
        session,  # type: ignore[arg-type]
        SHAPE,
        max_batch_size,
        may_grow=may_grow,
        timeout_s=60,
        clock=lambda: session.now_s,
    )


def test_every_size_is_warmed_up_and_measured() -> None:
    session = FakeSession(run_s=0.001, image_s=0.0005)
    assert measured(session) == pytest.approx({size: 1 + size / 2 for size in DEFAULT_SIZES})
    assert session.warmed_up == DEFAULT_SIZES
    assert session.warm_ups == 1, "each warm-up starts a thread"


def test_the_configured_size_is_the_last() -> None:
    assert list(measured(FakeSession(run_s=0.001), max_batch_size=6)) == [1, 2, 4, 6]


def test_fast_runs_are_repeated_and_slow_ones_are_measured_twice() -> None:
    fast, slow = FakeSession(run_s=0.001), FakeSession(run_s=0.02)
    measured(fast)
    measured(slow)
    assert set(fast.runs.values()) <= {10, 11}  # 10 ms, apart from rounding
    assert set(slow.runs.values()) == {2}


def test_a_measurement_ends_when_the_fastest_run_is_known() -> None:
    steady = FakeSession(run_s=0.0001)
    measured(steady)
    assert set(steady.runs.values()) == {1 + MAX_STEADY_RUNS}


def test_past_the_time_for_all_sizes_each_is_measured_once() -> None:
    session = FakeSession(run_s=MAX_MEASURE_S)
    measured(session)
    assert session.runs == dict.fromkeys(DEFAULT_SIZES, 1)


@pytest.mark.parametrize(
    ("run_s", "may_grow", "grows"), [(0.0009, True, True), (0.0009, False, False), (1, True, False)]
)
def test_only_a_fast_graph_that_may_grow_is_measured_at_larger_sizes(run_s: float, may_grow: bool, grows: bool) -> None:
    larger = [FAST_BATCH_SIZE, FAST_DEEP_QUEUE_BATCH_SIZE] if grows else []
    assert list(measured(FakeSession(run_s), may_grow=may_grow)) == DEFAULT_SIZES + larger


BATCH_MS = {1: 1.0, 2: 2.0, 4: 3.0, 32: 4.0, 64: 5.0, 128: 6.0}


@pytest.mark.parametrize(
    ("budget_ms", "is_configured", "expected"),
    [
        (0, False, BatchSizes(normal=64, max=128)),
        (0, True, BatchSizes(normal=128, max=128)),
        (4.0, False, BatchSizes(normal=32, max=32)),
        (3.9, False, BatchSizes(normal=4, max=4)),
        (0.1, False, BatchSizes(normal=1, max=1)),  # there is no smaller batch
    ],
)
def test_the_largest_size_within_the_budget(budget_ms: float, is_configured: bool, expected: BatchSizes) -> None:
    assert choose_batch_sizes(BATCH_MS, budget_ms, is_configured=is_configured) == expected
