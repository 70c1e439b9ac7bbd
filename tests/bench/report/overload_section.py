"""Builds the overload section of the report."""

from collections.abc import Sequence
from statistics import median

from tests.bench.overload.excess import ExcessResults
from tests.bench.overload.large_bodies import Interference
from tests.bench.overload.stop import Stop
from tests.bench.report.markdown import environment_table, table

EXCESS_COLUMNS = ["load", "offered", "clients", "capacity/s", "good/s", "good / capacity", "rejected/s", "late/s"]
EXCESS_COLUMNS += ["accepted p99 ms", "rejected p95 ms", "good / capacity after the load"]
STOP_COLUMNS = [
    "timeout, s",
    "workers",
    "proxy",
    "answered",
    "rejected",
    "late",
    "lost",
    "exit code",
    "exit after, s",
]
BODIES_COLUMNS = ["large body", "large/s", "large-body statuses", "p50 ms", "p99 ms", "memory MB"]


def overload(
    environment: dict[str, str],
    excess: ExcessResults,
    stops: Sequence[Stop],
    interferences: Sequence[Interference],
    command: str,
) -> str:
    """Returns the tables of the measured parts as Markdown."""
    parts = [environment_table(environment, command)]
    if excess.steps:
        parts += ["### Excess", _excess(excess)]
    if stops:
        parts += ["### SIGTERM under twice the capacity", _stops(stops)]
    if interferences:
        parts += ["### Small requests alongside large bodies", _interferences(interferences)]
    return "\n\n".join(parts)


def _excess(results: ExcessResults) -> str:
    rows = []
    for (scenario, factor), steps in results.steps.items():
        outcomes = [step.outcome for step in steps]
        rows.append(
            [
                scenario,
                f"{factor}x",
                f"{median(step.clients for step in steps):,.0f}",
                f"{median(step.capacity_per_s for step in steps):,.1f}",
                f"{median(one.good_per_s for one in outcomes):,.1f}",
                f"{results.good_ratio(scenario, factor):.0%}",
                f"{median(one.rejected_per_s for one in outcomes):,.0f}",
                f"{median(one.late_per_s for one in outcomes):,.1f}",
                f"{median(one.accepted_p99_ms for one in outcomes):,.0f}",
                f"{median(one.rejected_p95_ms for one in outcomes):,.0f}",
                f"{results.recovered_ratio(scenario, factor):.0%}",
            ]
        )
    return table(EXCESS_COLUMNS, rows)


def _stops(stops: Sequence[Stop]) -> str:
    rows = [
        [
            f"{stop.timeout_s:g}",
            str(stop.workers),
            "HAProxy" if stop.is_behind_haproxy else "none",
            f"{stop.answered:,}",
            f"{stop.rejected:,}",
            f"{stop.late:,}",
            f"{stop.lost:,}",
            "still running" if stop.exit_code is None else str(stop.exit_code),
            f"{stop.stop_s:.1f}",
        ]
        for stop in stops
    ]
    return table(STOP_COLUMNS, rows)


def _interferences(interferences: Sequence[Interference]) -> str:
    rows = [
        [
            one.kind,
            f"{one.large_per_s:.1f}",
            ", ".join(map(str, one.large_statuses)),
            f"{one.p50_ms:.1f}",
            f"{one.p99_ms:.1f}",
            f"{one.growth_bytes / 1e6:,.0f}",
        ]
        for one in interferences
    ]
    return table(BODIES_COLUMNS, rows)
