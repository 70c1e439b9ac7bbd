"""The results of a step: one row per figure or requirement, saved immediately, so that an aborted step keeps its
rows."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("step", "what", "found", "wanted", "holds")
ANSI_COLORS = re.compile(r"\x1b\[[0-9;]*m")
PROVIDER = "provider"
"""Name of the row that states whether the provider can be used."""
HOLDS_TEXT = {True: "yes", False: "**no**", None: ""}


class Row(NamedTuple):
    """A result.

    `required` is empty for a figure without a requirement; `holds` is then None, else whether it is met.
    """

    name: str
    measured: str
    required: str = ""
    holds: bool | None = None


Add = Callable[[Row], None]


def failed_step(why: str) -> Row:
    return Row("the step itself", f"failed: {why}", "finished", False)


def row_at_least(name: str, value: float, minimum: float, measured: str) -> Row:
    return Row(name, measured, f"at least {minimum:g}", value >= minimum)


class RowFile:
    """Rows in a file, each written immediately."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, row: Row) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[Row]:
        if not self._file.exists():
            return []
        return [Row(*json.loads(line)) for line in self._file.read_text(encoding="utf-8").splitlines()]


def table(rows_by_step: dict[str, list[Row]]) -> str:
    """Returns a Markdown table with the rows grouped by step."""
    lines = [("---",) * len(COLUMNS)]
    lines += [(step, *_cells(row)) for step, rows in rows_by_step.items() for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [COLUMNS, *lines])


def count_failed(rows_by_step: dict[str, list[Row]]) -> int:
    """Returns the number of requirements that are not met."""
    return sum(row.holds is False for rows in rows_by_step.values() for row in rows)


def _cells(row: Row) -> Iterable[str]:
    texts = (row.name, row.measured, row.required, HOLDS_TEXT[row.holds])
    return (" ".join(ANSI_COLORS.sub("", text).split()).replace("|", "\\|") for text in texts)
