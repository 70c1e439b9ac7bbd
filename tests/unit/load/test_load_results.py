"""A load passes only if no request failed and every limit was met. The load shape has the documented phases."""

import json
from pathlib import Path

import pytest

from tests.load import load_results
from tests.load.load_profile import users_at
from tests.load.load_results import ALL, Bounds, LocustResults, Row

GOOD = Row("one", 100, 0, 50.0, 10.0, 40.0)


def _measured(*rows: Row, p50_ms: float = 10.0, p99_ms: float = 40.0) -> LocustResults:
    total = Row(ALL, sum(r.requests for r in rows), sum(r.failures for r in rows), 50.0, p50_ms, p99_ms)
    return LocustResults([*rows, total], [])


def test_a_good_load_passes() -> None:
    assert load_results.problems(_measured(GOOD), Bounds(p99_ms=40, p99_over_p50=4)) == []


def test_one_failure_among_thousands_fails() -> None:
    bad = GOOD._replace(name="many", requests=10_000, failures=1)
    (problem,) = load_results.problems(_measured(GOOD, bad), Bounds(p99_ms=100))
    assert problem == "1 of 10000 requests 'many' failed or had a wrong response."


def test_the_bound_holds_for_every_kind_of_request() -> None:
    slow = GOOD._replace(name="slow", p99_ms=101.0)
    (problem,) = load_results.problems(_measured(GOOD, slow), Bounds(p99_ms=100))
    assert "p99 of 'slow' is 101 ms; the limit is 100 ms" in problem


def test_a_tail_too_long_for_its_median_fails() -> None:
    (problem,) = load_results.problems(_measured(GOOD, p50_ms=10, p99_ms=101), Bounds(p99_ms=500, p99_over_p50=10))
    assert "10 times" in problem


def test_a_load_without_requests_fails() -> None:
    assert load_results.problems(_measured(), Bounds(p99_ms=100)) == ["No request was made."]


def test_figures_are_read_as_written(tmp_path: Path) -> None:
    content = {"rows": [GOOD._asdict()], "errors": ["1 x one: wrong"]}
    (tmp_path / "figures.json").write_text(json.dumps(content))
    assert load_results.read_results(tmp_path / "figures.json") == LocustResults([GOOD], ["1 x one: wrong"])


def test_the_table_has_a_line_for_every_row() -> None:
    lines = load_results.table(_measured(GOOD).rows).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["one", "all"]


@pytest.mark.parametrize(
    ("second", "users"), [(0, 1), (10, 16), (20, 32), (40, 32), (44, 96), (55, 96), (56, 32), (79.9, 32)]
)
def test_users_ramp_up_hold_spike_and_hold(second: float, users: int) -> None:
    users_and_rate = users_at(second, 80, 32)
    assert users_and_rate is not None
    assert users_and_rate[0] == users


def test_the_shape_ends() -> None:
    assert users_at(80, 80, 32) is None
