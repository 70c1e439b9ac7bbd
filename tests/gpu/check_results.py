"""What a step has found: a row for each figure or promise, kept as it comes, so that a step cut short keeps its own."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

HEAD = ("step", "what", "found", "wanted", "holds")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PROVIDER = "provider"
"""The row that says whether there is anything to measure."""
VERDICTS = {True: "yes", False: "**no**", None: ""}


class Row(NamedTuple):
    """`wanted` is what was promised, empty for a mere figure; `holds` whether it is so, None where nothing was."""

    what: str
    found: str
    wanted: str = ""
    holds: bool | None = None


Add = Callable[[Row], None]


def failed(why: str) -> Row:
    return Row("the step itself", f"failed: {why}", "finished", False)


def at_least(what: str, value: float, least: float, found: str) -> Row:
    return Row(what, found, f"at least {least:g}", value >= least)


class Kept:
    """Rows in a file, each written at once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, row: Row) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[Row]:
        if not self._file.exists():
            return []
        return [Row(*json.loads(line)) for line in self._file.read_text(encoding="utf-8").splitlines()]


def table(found: dict[str, list[Row]]) -> str:
    """Markdown, one line a row; the rows of each step together."""
    lines = [("---",) * len(HEAD)]
    lines += [(step, *_cells(row)) for step, rows in found.items() for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [HEAD, *lines])


def broken(found: dict[str, list[Row]]) -> int:
    """How many promises do not hold."""
    return sum(row.holds is False for rows in found.values() for row in rows)


def _cells(row: Row) -> Iterable[str]:
    texts = (row.what, row.found, row.wanted, VERDICTS[row.holds])
    return (" ".join(COLOURS.sub("", text).split()).replace("|", "\\|") for text in texts)
