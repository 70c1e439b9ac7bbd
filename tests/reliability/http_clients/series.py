"""Series of requests by client, route and situation, and their outcomes, which are stored in a file.

An interrupted command continues with the series that are missing in the file.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.report.markdown import table

SizeOutcomes = dict[str, Counter[str]]
"""The number of requests by outcome, for each body size."""


class Series(NamedTuple):
    """The bodies of all sizes that one client sends over one route, to get responses with this status.

    With `is_closing`, it sends `Connection: close`.
    """

    route: str
    status: str
    client: str
    is_closing: bool

    def __str__(self) -> str:
        return f"{self.route}, {self.status}, {self.client}{', close' if self.is_closing else ''}"


class SeriesFile:
    """Outcomes by series. Each added outcome is appended to the file at once, if a file is given.

    Outcomes in the file count only if they belong to the same service and the same number of requests, which
    `conditions` states.
    """

    def __init__(self, file: Path | None, conditions: str) -> None:
        self.outcomes: dict[Series, SizeOutcomes] = {}
        self._file = file
        self._conditions = conditions
        if file is not None and file.exists():
            for line in file.read_text().splitlines():
                self._read(line)

    def add(self, series: Series, outcomes: SizeOutcomes) -> None:
        self.outcomes[series] = outcomes
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps([self._conditions, series, outcomes]) + "\n")

    def _read(self, line: str) -> None:
        conditions, series, outcomes = json.loads(line)
        if conditions == self._conditions:
            self.outcomes[Series(*series)] = {size: Counter(counts) for size, counts in outcomes.items()}


def wrong_outcomes(series: Series, outcomes: SizeOutcomes) -> dict[str, int]:
    """Returns the number of requests by description, for each outcome other than the expected status."""
    return {
        f"{series}, {size}: {outcome}": count
        for size, counts in outcomes.items()
        for outcome, count in counts.items()
        if outcome != series.status
    }


def describe_outcomes(results: dict[Series, SizeOutcomes], clients: Iterable[str], statuses: Sequence[str]) -> str:
    """Returns a table by client and status, followed by all wrong outcomes."""
    rows = []
    for client in clients:
        cells = []
        for status in statuses:
            of_cell = [sizes for series, sizes in results.items() if (series.client, series.status) == (client, status)]
            counts = sum((counts for sizes in of_cell for counts in sizes.values()), Counter[str]())
            cells.append(f"{counts[status]:,} of {counts.total():,}")
        rows.append([client, *cells])
    wrong = [
        f"- {where} ({count})"
        for series, sizes in results.items()
        for where, count in wrong_outcomes(series, sizes).items()
    ]
    return "\n\n".join([table(["client", *statuses], rows), "\n".join(wrong) or "Everything arrived."])
