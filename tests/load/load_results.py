"""Compares locust's results with the limits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ALL = "all requests"


class Row(NamedTuple):
    """The figures of all requests with one name, or of all requests (ALL)."""

    name: str
    requests: int
    failures: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


class LocustResults(NamedTuple):
    """The results of locust: one row per name, ALL last, and the problems as sentences."""

    rows: list[Row]
    errors: list[str]


class Bounds(NamedTuple):
    """The limits that a load must meet."""

    p99_ms: float
    """Limit for every row."""
    p99_over_p50: float | None = None
    """Limit for all requests together. None: no limit."""


def read_results(figures: Path) -> LocustResults:
    content = json.loads(figures.read_text())
    return LocustResults([Row(**row) for row in content["rows"]], content["errors"])


def problems(results: LocustResults, bounds: Bounds) -> list[str]:
    """Returns every violated limit as a sentence. Empty if the load passed."""
    *rows, total = results.rows
    if not total.requests:
        return ["No request was made."]
    problems = [
        f"{row.failures} of {row.requests} requests '{row.name}' failed or had a wrong response."
        for row in rows
        if row.failures
    ]
    problems += [
        f"p99 of '{row.name}' is {row.p99_ms:.0f} ms; the limit is {bounds.p99_ms:.0f} ms."
        for row in rows
        if row.p99_ms > bounds.p99_ms
    ]
    if bounds.p99_over_p50 is not None and total.p99_ms > bounds.p99_over_p50 * total.p50_ms:
        problems.append(
            f"p99 of all requests is {total.p99_ms:.0f} ms, p50 {total.p50_ms:.0f} ms; the limit is "
            f"{bounds.p99_over_p50:g} times."
        )
    return problems


def table(rows: Sequence[Row]) -> str:
    """Formats the rows as a table."""
    lines = [f"{'':26}{'requests':>10}{'failed':>8}{'per s':>9}{'p50 ms':>9}{'p99 ms':>9}"]
    lines += [
        f"{r.name:26}{r.requests:10}{r.failures:8}{r.requests_per_s:9.1f}{r.p50_ms:9.0f}{r.p99_ms:9.0f}" for r in rows
    ]
    return "\n".join(lines)
