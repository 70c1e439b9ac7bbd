"""What locust measured, held against the bounds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ALL = "all requests"


class Row(NamedTuple):
    """The requests of one name; ALL for all together."""

    name: str
    requests: int
    failures: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


class LocustResults(NamedTuple):
    """One run of locust: a row for each name, ALL last, and what went wrong, as sentences."""

    rows: list[Row]
    errors: list[str]


class Bounds(NamedTuple):
    """What a load must keep."""

    p99_ms: float
    """For every row."""
    p99_over_p50: float | None = None
    """For all requests together; None: not asked."""


def read_results(figures: Path) -> LocustResults:
    content = json.loads(figures.read_text())
    return LocustResults([Row(**row) for row in content["rows"]], content["errors"])


def problems(results: LocustResults, bounds: Bounds) -> list[str]:
    """Every bound that was not kept, as a sentence; empty when the load is passed."""
    *rows, total = results.rows
    if not total.requests:
        return ["No request was made."]
    problems = [
        f"{row.failures} of {row.requests} requests '{row.name}' failed or had a wrong answer."
        for row in rows
        if row.failures
    ]
    problems += [
        f"p99 of '{row.name}' is {row.p99_ms:.0f} ms; the bound is {bounds.p99_ms:.0f} ms."
        for row in rows
        if row.p99_ms > bounds.p99_ms
    ]
    if bounds.p99_over_p50 is not None and total.p99_ms > bounds.p99_over_p50 * total.p50_ms:
        problems.append(
            f"p99 of all requests is {total.p99_ms:.0f} ms, p50 {total.p50_ms:.0f} ms; "
            f"the bound is {bounds.p99_over_p50:g} times."
        )
    return problems


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    lines = [f"{'':26}{'requests':>10}{'failed':>8}{'per s':>9}{'p50 ms':>9}{'p99 ms':>9}"]
    lines += [
        f"{r.name:26}{r.requests:10}{r.failures:8}{r.requests_per_s:9.1f}{r.p50_ms:9.0f}{r.p99_ms:9.0f}" for r in rows
    ]
    return "\n".join(lines)
