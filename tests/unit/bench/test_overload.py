"""Results of requests under overload, and requests lost in a stop, are counted correctly."""

import pytest

from tests.bench.load_generators.retrying_clients import LOST, RequestRecord
from tests.bench.overload.excess import ExcessResults, Outcome, Step, client_count, summarize
from tests.bench.overload.large_bodies import Interference
from tests.bench.overload.run import OverloadResults
from tests.bench.overload.stop import Stop, count
from tests.bench.report.overload_section import overload as section


def test_answers_are_counted_in_the_window_in_which_they_arrive() -> None:
    good = [RequestRecord(n / 10, 0.2, 200) for n in range(100)]
    rejected = [RequestRecord(n / 5, 0.001, 429 if n % 2 else 503) for n in range(50)]
    late = [RequestRecord(6.0, 0.5, 504)]
    outcome = summarize([*good, *rejected, *late], 5, 10)
    assert (outcome.good_per_s, outcome.rejected_per_s) == (pytest.approx(10, abs=0.3), 5)
    assert outcome.late_per_s == 0.2
    assert (outcome.accepted_p99_ms, outcome.rejected_p95_ms) == (pytest.approx(200), pytest.approx(1))
    assert outcome.failed == 0


def test_a_late_answer_is_the_slowest_of_the_accepted() -> None:
    records = [RequestRecord(0, 2.5, 504), RequestRecord(0, 2.4, 504), RequestRecord(0, 0.1, 200)]
    assert summarize(records, 0, 3).accepted_p99_ms == pytest.approx(2400)


def test_an_answer_after_the_window_is_not_good() -> None:
    assert summarize([RequestRecord(n / 10, 20.0, 200) for n in range(100)], 5, 10).good_per_s == 0


@pytest.mark.parametrize("status", [500, 502, LOST])
def test_any_other_status_is_a_failure_even_outside_the_window(status: int) -> None:
    assert summarize([RequestRecord(0, 0.1, status)], 5, 10).failed == 1


@pytest.mark.parametrize(
    ("capacity_per_s", "timeout_s", "factor", "clients"), [(27, 2, 1, 54), (27, 2, 8, 432), (1000, 0.5, 8, 2000)]
)
def test_clients_are_capacity_times_timeout_up_to_the_maximum(
    capacity_per_s: float, timeout_s: float, factor: int, clients: int
) -> None:
    assert client_count(capacity_per_s, timeout_s, factor) == clients


def test_a_stop_loses_what_is_neither_answered_nor_rejected() -> None:
    statuses = (200, 200, 429, 503, 504, 500, 502, LOST)
    assert count([RequestRecord(0, 0, status) for status in statuses]) == (2, 2, 1, 3)


def excess_results(*, failed: int = 0) -> ExcessResults:
    results = ExcessResults()
    for capacity_per_s, good_per_s in ((100, 95), (10, 3), (200, 180)):  # in the second round the machine was busy
        outcome = Outcome(good_per_s, 300, 1, failed, 480, 20)
        results.steps["image", 4].append(Step(40, capacity_per_s, outcome, capacity_per_s * 0.97))
    return results


def test_the_section_shows_medians_over_the_rounds() -> None:
    stop = Stop(30, 2, True, 50, 7, 1, 0, 0, 12.34)
    interference = Interference("form", 2.5, (200,), 1.2, 9.8, 120_000_000)
    text = section({"CPU": "one"}, excess_results(), [stop], [interference], "make bench-overload")
    assert "| image | 4x | 40 | 100.0 | 95.0 | 90% | 300 | 1.0 | 480 | 20 | 97% |" in text
    assert "| 30 | 2 | HAProxy | 50 | 7 | 1 | 0 | 0 | 12.3 |" in text
    assert "| form | 2.5 | 200 | 1.2 | 9.8 | 120 |" in text


def test_failed_and_lost_requests_make_a_run_void() -> None:
    assert OverloadResults({}, excess_results()).voids() == []
    stop = Stop(2, 1, False, 50, 7, 0, 3, 0, 2.0)
    assert OverloadResults({}, excess_results(failed=3), [stop]).voids() == [
        "image at 4x: 9 failed",
        "3 lost in a stop with timeout 2 s",
    ]
