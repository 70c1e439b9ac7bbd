"""Calculates the memory that an installation needs from the measurements in docs/capacity.md."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.bench.report.markdown import table
from tests.bench.sizing.measure import Size

PAGE = Path(__file__).parents[3] / "docs/capacity.md"
SPARE = 1.25
"""Factor for spare memory, because images and batches can be larger than in the measurement."""
HEAD = (
    *("models", "graphs", "workers", "idle"),
    *("under load", "while a version is replaced", "memory limit", "CPU per image"),
)


def limit_mib(size: Size, workers: int) -> int:
    """Returns the memory limit for a number of workers, from a measurement with one worker."""
    return round(SPARE * workers * size.replaced_mib)


def as_table(sizes: Sequence[Size]) -> str:
    rows = [
        (
            *(size.models, f"{size.graph_mb:.1f} MB", str(size.workers)),
            *(f"{mib:,} MiB" for mib in (size.idle_mib, size.loaded_mib, size.replaced_mib)),
            f"{SPARE * size.replaced_mib:,.0f} MiB",
            f"{size.cpu_ms:.2f} ms",
        )
        for size in sizes
    ]
    return table(HEAD, rows)


def measured_sizes(page: Path = PAGE) -> list[Size]:
    """Reads the table of measured sizes from docs/capacity.md."""
    section = page.read_text().partition("<!-- sizing: begin -->")[2].partition("<!-- sizing: end -->")[0]
    sizes = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(HEAD) and re.fullmatch(r"\d+", cells[2]):
            _, graph_mb, workers, idle, loaded, replaced, _, cpu_ms = (
                float(cell.split()[0].replace(",", "")) if index else 0.0 for index, cell in enumerate(cells)
            )
            sizes.append(Size(cells[0], graph_mb, int(workers), int(idle), int(loaded), int(replaced), cpu_ms))
    return sizes
