"""What a long check says: printed as it comes, and kept for the section of a document that shows it."""

import os
from datetime import UTC, datetime
from pathlib import Path

from service.hardware import usable_cores
from tests.bench.machine_info import cpu_model
from tests.bench.report.sections import replace_section


class Told:
    """Lines in the order of telling, and how busy the machine was before."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._load = os.getloadavg()[0]

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        self._lines.append(line)

    def write(self, file: Path, section: str, command: str) -> None:
        """Puts all of it between the section's markers. Raises CannotMeasure where the file has none."""
        head = (
            f"`{command}`, {datetime.now(UTC).date().isoformat()}, {cpu_model()}, {usable_cores()} cores, "
            f"load average before the start {self._load:.1f}:"
        )
        replace_section(file, section, "\n".join([head, "", "```", *self._lines, "```"]))
