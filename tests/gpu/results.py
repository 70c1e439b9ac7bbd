"""The results of a step: a row for each figure or requirement. Rows are written immediately, so that an interrupted
step keeps its results."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("step", "what", "found", "required", "holds")
HOLDS_TEXT = {True: "yes", False: "**no**", None: ""}


class Row(NamedTuple):
    """One result. `required` is empty for a figure without a requirement. `holds` states whether the requirement is
    met, or is None if there is none."""

    name: str
    found: str
    required: str = ""
    holds: bool | None = None


Add = Callable[[Row], None]


def at_least(name: str, value: float, minimum: float, found: str) -> Row:
    return Row(name, found, f"at least {minimum:g}", value >= minimum)


def failed(name: str, reason: object) -> Row:
    return Row(name, f"failed: {str(reason)[:300]}", "finished", False)


def append(file: Path, row: Row) -> None:
    with file.open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(row) + "\n")


def read(file: Path) -> list[Row]:
    return [Row(*json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def table(rows_by_step: dict[str, list[Row]]) -> str:
    """Returns a Markdown table with one line per row, grouped by step."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    lines += [(step, *_cells(row)) for step, rows in rows_by_step.items() for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> Iterable[str]:
    texts = (row.name, row.found, row.required, HOLDS_TEXT[row.holds])
    return (" ".join(text.split()).replace("|", "\\|") for text in texts)
