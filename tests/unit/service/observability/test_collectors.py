"""Durations are counted exactly like in prometheus_client's histogram."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from service.observability.collectors import MAX_PENDING, DurationHistogramCollector

BOUNDS_S = (0.001, 0.25, 1, 30)


@given(st.lists(st.sampled_from([*BOUNDS_S, 0.0, 0.0005, 0.3, 31.0]), max_size=50))
def test_counts_are_those_of_prometheus(seconds: list[float]) -> None:
    ours = DurationHistogramCollector("wait_seconds", "Waiting.", ["model"], BOUNDS_S)
    theirs = Histogram("wait_seconds", "Waiting.", ["model"], buckets=BOUNDS_S, registry=CollectorRegistry())
    for value in seconds:
        ours.labels("a").observe(value)
        theirs.labels("a").observe(value)
    ours.labels("b"), theirs.labels("b")
    (found,), (expected,) = list(ours.collect()), list(theirs.collect())
    assert {(s.name, *s.labels.items()): round(s.value, 6) for s in found.samples} == {
        (s.name, *s.labels.items()): round(s.value, 6) for s in expected.samples if not s.name.endswith("_created")
    }


@pytest.mark.parametrize("values", [1, MAX_PENDING, 2 * MAX_PENDING + 1])
def test_every_value_is_counted_once(values: int) -> None:
    durations = DurationHistogramCollector("wait_seconds", "Waiting.", ["model"], BOUNDS_S)
    for total in (values, 2 * values):
        for _ in range(values):
            durations.labels("a").observe(0.5)
        (family,) = durations.collect()
        found = {s.name: s.value for s in family.samples}
        assert (found["wait_seconds_count"], found["wait_seconds_sum"]) == (total, total / 2)
