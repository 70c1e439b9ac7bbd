"""Markdown for the reports: tables, marked sections, and the transcript of a long check."""

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from service.hardware import usable_cores
from tests.bench.errors import CannotMeasure
from tests.bench.machine_info import cpu_model


def replace_section(report: Path, section: str, content: str) -> None:
    """Writes `content` between the section's markers. Raises CannotMeasure if the report does not have them."""
    text = report.read_text() if report.exists() else ""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise CannotMeasure(f"{report} has no lines {begin} and {end}, between which the results belong.")
    report.write_text(pattern.sub(lambda _: f"{begin}\n\n{content.strip()}\n\n{end}", text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table with a left-aligned first column and right-aligned figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def environment_table(environment: dict[str, str], command: str) -> str:
    return table(["", ""], [*environment.items(), ("command", f"`{command}`")]).replace("---:", "---")


class Transcript:
    """Collects lines of output in order, and the load average before the start."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._load = os.getloadavg()[0]

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        self._lines.append(line)

    def write(self, file: Path, section: str, command: str) -> None:
        """Writes everything between the section's markers. Raises CannotMeasure if the file does not have them."""
        head = (
            f"`{command}`, {datetime.now(UTC).date().isoformat()}, {cpu_model()}, {usable_cores()} cores, "
            f"load average before the start {self._load:.1f}:"
        )
        replace_section(file, section, "\n".join([head, "", "```", *self._lines, "```"]))
