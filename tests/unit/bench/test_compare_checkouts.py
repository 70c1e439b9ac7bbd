"""Checkouts are compared by the ratios within each round."""

from pathlib import Path

import pytest

from tests.bench import compare_checkouts
from tests.bench.compare_checkouts import CheckoutResults, Plan
from tests.bench.load_generators.closed_loop import LoadResult
from tests.bench.report import markdown


def load_result(requests_per_s: float, failed: int = 0) -> LoadResult:
    return LoadResult(requests_per_s, p50_ms=1.0, p99_ms=2.0, requests=100, failed=failed)


def plan(rounds: int = 4) -> Plan:
    return Plan(
        checkouts=(Path("before"), Path("after")),
        models=Path("models"),
        model="m",
        images=None,
        workers=1,
        rounds=rounds,
        seconds=1.0,
        connections=8,
        only=(),
    )


@pytest.fixture
def drifting() -> CheckoutResults:
    """Returns results of a machine that slows down by half. The second checkout is 10% faster except in one round."""
    first = [1000.0, 800.0, 600.0, 500.0]
    second = [1100.0, 880.0, 300.0, 550.0]
    return CheckoutResults({"image": [[load_result(rate) for rate in first], [load_result(rate) for rate in second]]})


def test_the_ratio_is_that_within_the_rounds(drifting: CheckoutResults) -> None:
    low, middle, high = drifting.ratio("image", 1)
    assert (middle, high) == pytest.approx((1.1, 1.1))
    assert low < 1.0, "the disturbed round shows in the quartiles"
    assert drifting.ratio("image", 0) == pytest.approx((1.0, 1.0, 1.0))


def test_every_checkout_has_its_row(drifting: CheckoutResults) -> None:
    assert markdown.table(compare_checkouts.HEAD, compare_checkouts.rows(drifting, plan())).splitlines()[2:] == [
        "| image | before | 700 | 1.000 | 1.000 to 1.000 | 1.00 | 2.00 |",
        "| image | after | 715 | 1.100 | 0.950 to 1.100 | 1.00 | 2.00 |",
    ]


def test_a_failed_request_makes_a_load_void(drifting: CheckoutResults) -> None:
    assert drifting.voids() == []
    drifting.runs["image"][1][0] = load_result(1100.0, failed=3)
    assert drifting.voids() == ["image at checkout 1: 3 failed"]
    assert [row[2:4] for row in compare_checkouts.rows(drifting, plan())] == [["700", "1.000"], ["void", "void"]]


def test_a_checkout_without_responses_has_no_ratios(drifting: CheckoutResults) -> None:
    drifting.runs["image"][0][2] = load_result(0.0, failed=8)
    assert [set(row[2:]) for row in compare_checkouts.rows(drifting, plan())] == [{"void"}, {"void"}]
