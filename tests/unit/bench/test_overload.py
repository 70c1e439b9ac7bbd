"""What became of each request of a flood is counted rightly: good, refused, lost; latencies of the accepted only."""

from pathlib import Path

import pytest

from tests.bench import overload
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.saturation import Outcome, RequestRecord, parse_h2load_logs, summarize
from tests.bench.overload import OverloadResults, Step, connections_for
from tests.bench.report.sections import overload as section


def test_the_logs_of_several_generators_become_one_in_order_of_sending() -> None:
    log = "2000000\t200\t500000\n1000000\t429\t1000\n1500000\t-1\t0\n"
    assert parse_h2load_logs(log) == [
        RequestRecord(0.0, 0.001, 429),
        RequestRecord(0.5, 0.0, -1),
        RequestRecord(1.0, 0.5, 200),
    ]
    with pytest.raises(CannotMeasure, match="no answer"):
        parse_h2load_logs("")


def test_good_and_refused_are_counted_in_the_window_and_the_rest_is_no_figure() -> None:
    good = [RequestRecord(n / 10, 0.2, 200) for n in range(100)]
    refused = [RequestRecord(n / 5, 0.001, 429) for n in range(50)]
    lost = [RequestRecord(1.0, 0.0, -1), RequestRecord(2.0, 0.1, 503)]
    outcome = summarize([*good, *refused, *lost], 5, 10)
    assert (outcome.goodput_per_s, outcome.refused_per_s) == (pytest.approx(10, abs=0.3), 5)
    assert outcome.sent_per_s == 15
    assert (outcome.p50_ms, outcome.p99_ms, outcome.refused_p99_ms) == (200, 200, 1)
    assert outcome.other == 2


def test_what_was_answered_after_the_window_is_no_goodput() -> None:
    assert summarize([RequestRecord(n / 10, 20.0, 200) for n in range(100)], 5, 10).goodput_per_s == 0


@pytest.mark.parametrize(
    ("rate", "max_connections", "expected"), [(40_000, 1024, 1024), (400, 1024, 100), (10, 1024, 64), (10, 8, 8)]
)
def test_connections_are_as_many_as_the_rate_needs(rate: float, max_connections: int, expected: int) -> None:
    assert connections_for(rate, max_connections) == expected


def overload_results(*, other: int = 0) -> OverloadResults:
    measured = OverloadResults({"CPU": "one"})
    for peak_per_s, good_per_s in ((100, 95), (10, 3), (200, 180)):  # in the second round something else was at work
        peak, overload = Outcome(100, peak_per_s, 0, 0, 1, 2, 0), Outcome(400, good_per_s, 300, other, 10, 20, 1)
        measured.steps["image", 4].append(Step(peak, overload, 250, 300, 0.25))
    return measured


def test_the_section_tells_goodput_of_the_peak_and_recovery() -> None:
    row = "| image | 4x | 100 | 400 | 95 | 300 | 90% | 10 | 20 | 1 | 0.25 | 250 | 300 |"
    assert row in section(overload_results(), "make bench-overload")


def test_an_answer_that_is_neither_good_nor_a_refusal_is_a_failure() -> None:
    assert overload_results().voids() == []
    assert overload_results(other=3).voids() == ["image at 4x: 9 failed"]


def test_recovery_lasts_until_answers_are_as_fast_as_at_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now_s = 0.0

    def probe(url: str, body: object) -> float:
        nonlocal now_s
        took_s = 0.4 if now_s < 1 else 0.01
        now_s += took_s
        return took_s

    monkeypatch.setattr(overload, "_probe", probe)
    monkeypatch.setattr(overload.time, "monotonic", lambda: now_s)
    assert overload.recovery("", None, idle_s=0.01) == pytest.approx(1.2)  # type: ignore[arg-type]
