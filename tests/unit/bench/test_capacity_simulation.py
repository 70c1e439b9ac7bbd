"""The simulation agrees with queueing theory and arithmetic in cases with a known result."""

import math

import pytest

from tests.bench.capacity.simulation import Replica, simulate_autoscaler, simulate_closed_loop, simulate_open_loop

SINGLE_IMAGE_REPLICA = Replica(request_s=0.0, batch_s={1: 0.01}, max_batch_size=1)


def test_single_requests_wait_as_in_the_pollaczek_khinchine_formula() -> None:
    """M/D/1: at a utilization u, the mean number in the system is u + u^2 / (2 (1 - u)); Little's law gives the
    wait."""
    result = simulate_open_loop(SINGLE_IMAGE_REPLICA, 50, seconds=400)
    assert result.answered_per_s == pytest.approx(50, rel=0.03)
    assert result.utilization == pytest.approx(0.5, rel=0.03)
    assert result.images_per_batch == 1
    # P(no wait) = 1 - u = 1/2: the median is one service time.
    assert result.p50_ms == pytest.approx(10, rel=0.1)
    assert 20 < result.p99_ms < 60


def test_the_peak_is_the_reciprocal_of_the_work() -> None:
    replica = Replica(request_s=0.0002, batch_s={1: 0.001, 32: 0.0032})
    assert replica.peak_per_s() == pytest.approx(1 / (0.0002 + 0.0001))
    result = simulate_closed_loop(replica, connections=256, seconds=3)
    assert result.answered_per_s == pytest.approx(replica.peak_per_s(), rel=0.05)
    assert result.images_per_batch > 30
    assert result.utilization == pytest.approx(1, abs=0.01)


def test_a_second_core_helps_until_the_event_loop_is_full() -> None:
    replica = Replica(request_s=0.0004, batch_s={1: 0.001, 32: 0.0064}, cores=2)
    assert replica.peak_per_s() == pytest.approx(1 / 0.0004)
    assert simulate_closed_loop(replica, 128, 3).answered_per_s == pytest.approx(2500, rel=0.05)


def test_one_connection_waits_for_parsing_run_and_network() -> None:
    replica = Replica(request_s=0.001, batch_s={1: 0.002}, network_s=0.003)
    result = simulate_closed_loop(replica, connections=1, seconds=5)
    assert result.p50_ms == pytest.approx(6)
    assert result.answered_per_s == pytest.approx(1 / 0.006, rel=0.01)


def test_batches_grow_with_the_load_and_excess_requests_are_rejected() -> None:
    replica = Replica(request_s=0.0001, batch_s={1: 0.002, 32: 0.004}, max_queue_images=200)
    calm, busy = simulate_open_loop(replica, 200, 5), simulate_open_loop(replica, 3000, 5)
    assert calm.images_per_batch < 2 < busy.images_per_batch
    over = simulate_open_loop(replica, 2 * replica.peak_per_s(), 5)
    assert over.refused == pytest.approx(0.5, abs=0.03)
    assert calm.refused == busy.refused == 0


def test_a_run_between_two_measured_sizes_is_on_the_line() -> None:
    replica = Replica(request_s=0.0, batch_s={1: 1.0, 3: 2.0, 8: 7.0})
    assert [replica.run_s(size) for size in (1, 2, 3, 4, 8)] == [1.0, 1.5, 2.0, 3.0, 7.0]


def test_the_autoscaler_follows_a_load_ten_times_the_one_before() -> None:
    result = simulate_autoscaler(100.0, 10, lambda _: 6000.0, seconds=600, target=0.6, max_replicas=1000, start_s=10)
    assert 100 <= result.replicas <= 170, "at least enough for the load; the queue was processed at full utilization"
    assert 0 < result.settled_s < 300
    assert 0 < result.refused < 1


def test_an_autoscaler_at_its_limit_never_settles() -> None:
    result = simulate_autoscaler(100.0, 10, lambda _: 6000.0, seconds=600, target=0.6, max_replicas=50, start_s=10)
    assert result.replicas == 50
    assert math.isinf(result.settled_s)


def test_enough_replicas_change_nothing() -> None:
    result = simulate_autoscaler(100.0, 10, lambda _: 500.0, seconds=60, target=0.6, max_replicas=50, start_s=10)
    assert result == (10, 0, 0.0)
