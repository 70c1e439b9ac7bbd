"""Output of wrk and h2load is parsed correctly: waiting counts as latency, missing responses count as failed."""

from tests.bench.load_generators import open_loop
from tests.bench.load_generators.closed_loop import LoadResult, parse_wrk
from tests.bench.load_generators.open_loop import read_log


def test_the_last_line_of_wrk_is_parsed() -> None:
    output = 'Running 2s test\n{"answers": 500, "seconds": 2.5, "failed": 3, "p50_us": 1500, "p99_us": 20000}\n'
    assert parse_wrk(output) == LoadResult(requests_per_s=200, p50_ms=1.5, p99_ms=20, requests=500, failed=3)


def _log(*lines: tuple[float, int, float]) -> str:
    return "".join(f"{round(start_s * 1e6)}\t{status}\t{round(took_s * 1e6)}\n" for start_s, status, took_s in lines)


def _latencies_ms(log: str, connections: int, interval_s: float) -> list[float]:
    return [round(answer.latency_s * 1000, 3) for answer in read_log(log, connections, interval_s)]


def test_a_request_on_time_counts_from_its_start() -> None:
    """h2load's timer can be late by one or two milliseconds, which must not count as latency."""
    log = _log((100.0, 200, 0.002), (100.1004, 200, 0.003), (100.2019, 200, 0.004))
    assert _latencies_ms(log, 1, 0.1) == [2, 3, 4]


def test_a_request_held_up_by_the_one_before_counts_from_when_it_was_due() -> None:
    """Requests are due every 0.1 s. The first takes 0.25 s, so the second starts 0.15 s late and the third 0.06 s
    late."""
    assert _latencies_ms(_log((100.0, 200, 0.25), (100.25, 200, 0.01), (100.26, 200, 0.01)), 1, 0.1) == [250, 160, 70]


def test_all_connections_have_a_request_due_at_once() -> None:
    """One of two connections is delayed by 0.1 s. The log is sorted by end times."""
    log = _log((5.0, 200, 0.01), (5.1, 200, 0.01), (5.0, 200, 0.2), (5.2, 200, 0.01), (5.2, 200, 0.01))
    assert _latencies_ms(log, 2, 0.1) == [10, 200, 10, 110, 10]


def test_another_status_is_a_failure() -> None:
    good, refused, cut_off = read_log(_log((1.0, 200, 0.1), (2.0, 429, 0.1), (3.0, -1, 0.1)), 1, 1)
    assert (good.is_ok, refused.is_ok, cut_off.is_ok) == (True, False, False)


def test_a_rate_that_was_not_kept_is_noticed() -> None:
    answers = [open_loop.Answer(due_s=number / 100, latency_s=0.001, is_ok=True) for number in range(1000)]
    assert open_loop._summarize(answers, 100, connections=4, seconds=10).missing == 0
    late = open_loop._summarize(answers[:500], 100, connections=4, seconds=10)
    assert late.missing == 970 - 4 - 500


def test_the_beginning_does_not_count() -> None:
    slow_start = [
        open_loop.Answer(due_s=number / 10, latency_s=9.0 if number < 20 else 0.5, is_ok=True) for number in range(100)
    ]
    result = open_loop._summarize(slow_start, 10, connections=1, seconds=10)
    assert (result.p99_ms, result.requests) == (500, 80)
