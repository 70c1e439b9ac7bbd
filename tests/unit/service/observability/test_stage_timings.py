"""The stages of a request are sequential, and only finished stages are reported."""

import pytest

from service.observability.metrics import Metrics
from service.observability.stage_timings import StageTimings
from service.observability.version_stats import VersionStats


def test_stages_follow_one_another_from_the_start_of_the_request() -> None:
    timings = StageTimings()
    assert timings.stages() == []
    timings.mark_decoded()
    timings.mark_computed(0.25, 0.5, 3)
    (decode, start_s, decoded_s), (queue, queued_s, run_s), (compute, computing_s, end_s) = timings.stages()
    assert (decode, queue, compute) == ("decode", "queue", "compute")
    assert start_s < decoded_s == queued_s
    assert run_s == computing_s
    assert (run_s - queued_s, end_s - run_s) == (pytest.approx(0.25), pytest.approx(0.5))
    assert timings.log_fields() == {
        "batch_size": 3,
        "decode_ms": round(timings.decode_s * 1000, 3),
        "queue_ms": 250.0,
        "compute_ms": 500.0,
    }


def test_a_request_is_counted_as_a_success_with_its_stages_or_as_a_failure() -> None:
    timings, statistics, metrics = StageTimings(), VersionStats(), Metrics()
    timings.mark_computed(0.25, 0.5, 3)
    timings.record_success(statistics, metrics, "linear", "batch")
    assert (statistics.success.count, statistics.fail.count) == (1, 0)
    assert (statistics.queue.seconds, statistics.compute.seconds) == (0.25, 0.5)
    timings.record_error(statistics, is_failure=True)
    assert (statistics.success.count, statistics.fail.count) == (1, 1)
