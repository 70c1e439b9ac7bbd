"""Expected run times: the measured curve between its sizes and past them, scaled by the runs since."""

import pytest

from service.inference.run_times import SMOOTHING, RunTimes

MEASURED_S = {1: 0.01, 8: 0.045, 32: 0.165}


@pytest.mark.parametrize(
    ("images", "expected_s"), [(0, 0.0), (1, 0.01), (4, 0.025), (8, 0.045), (20, 0.105), (32, 0.165), (64, 0.33)]
)
def test_sizes_between_the_measured_ones_lie_on_a_line(images: int, expected_s: float) -> None:
    assert RunTimes(64, MEASURED_S).seconds(images) == pytest.approx(expected_s)


def test_without_a_measurement_the_first_run_counts_in_proportion() -> None:
    times = RunTimes(8)
    assert not times.is_known
    assert times.seconds(8) == 0
    times.record(2, 0.5)
    assert times.is_known
    assert (times.seconds(1), times.seconds(8)) == (pytest.approx(0.25), pytest.approx(2.0))


def test_a_machine_that_became_slower_is_learned_for_every_size() -> None:
    times = RunTimes(32, MEASURED_S)
    times.record(8, 0.09)
    assert times.seconds(32) == pytest.approx(0.165 * (1 + SMOOTHING))
    for _ in range(50):
        times.record(1, 0.02)
    assert times.seconds(32) == pytest.approx(0.33, rel=1e-3)


def test_a_model_that_measured_as_instant_stays_so() -> None:
    times = RunTimes(8, {1: 0.0, 8: 0.0})
    times.record(4, 0.1)
    assert times.seconds(4) == 0


def test_many_images_run_in_full_batches_and_a_smaller_one() -> None:
    assert RunTimes(32, MEASURED_S).seconds_in_batches(17, 8) == pytest.approx(2 * 0.045 + 0.01)


@pytest.mark.parametrize(
    ("seconds", "limit", "images"), [(1.0, 32, 32), (0.045, 32, 8), (0.044, 32, 7), (0.01, 32, 1), (0.009, 32, 0)]
)
def test_the_largest_run_within_a_time(seconds: float, limit: int, images: int) -> None:
    assert RunTimes(32, MEASURED_S).max_images_within(seconds + 1e-9, limit) == images
