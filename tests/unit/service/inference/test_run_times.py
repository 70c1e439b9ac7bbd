"""Expected run times: the measured curve is interpolated and extrapolated, and scaled by later runs."""

import pytest

from service.inference.run_times import DEVIATIONS, MAX_SAFETY_FACTOR, MIN_SAFETY_FACTOR, SMOOTHING, RunTimes

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


def test_a_process_that_was_paused_during_a_run_does_not_seem_slow_for_long() -> None:
    times = RunTimes(32, MEASURED_S)
    times.record(1, 600.0)
    assert times.seconds(1) < 3 * 0.01
    for _ in range(10):
        times.record(1, 0.01)
    assert times.seconds(1) < 1.2 * 0.01
    for _ in range(50):  # a model that really became slower by a factor of 100
        times.record(1, 1.0)
    assert times.seconds(1) == pytest.approx(1.0, rel=1e-3)


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


def test_the_safety_factor_grows_with_how_much_runs_vary() -> None:
    times = RunTimes(32, MEASURED_S)
    assert times.safety_factor == MIN_SAFETY_FACTOR
    times.record(8, 0.045 * 1.5)  # half of the expected time more than expected
    scale, deviation = 1 + SMOOTHING * 0.5, SMOOTHING * 0.5
    assert times.safety_factor == pytest.approx(1 + DEVIATIONS * deviation / scale)
    times.record(8, 0.045 * 1.5)  # the same time again; the expected time has grown, so the excess is 0.4 of it
    scale, deviation = scale + SMOOTHING * 0.4, deviation + SMOOTHING * (0.4 - deviation)
    assert times.safety_factor == pytest.approx(1 + DEVIATIONS * deviation / scale)
    times.record(8, 0.45)
    assert times.safety_factor == MAX_SAFETY_FACTOR
    for _ in range(200):
        times.record(8, 0.045)
    assert times.safety_factor == MIN_SAFETY_FACTOR


def test_a_busy_event_loop_counts_for_the_safety_factor_and_not_for_the_run() -> None:
    times = RunTimes(32, MEASURED_S)
    times.record(8, 0.045, turnaround_s=0.09)
    assert times.seconds(8) == pytest.approx(0.045)
    assert times.safety_factor == pytest.approx(1 + DEVIATIONS * SMOOTHING)
