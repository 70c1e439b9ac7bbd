"""Writes the sections and the plot of tests/reliability/README.md. Each command writes its own results."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import machine_info
from tests.bench.report import markdown

if TYPE_CHECKING:
    from tests.reliability.soak import SoakResults

REPORT = Path("tests/reliability/README.md")
ABOUT = ("CPU", "cores", "system", "date", "convoy")


def add_report(command: argparse.ArgumentParser) -> None:
    help_text = "Markdown file for the results (default: %(default)s)"
    command.add_argument("--report", type=Path, default=REPORT, help=help_text)


def write(file: Path, section: str, content: str) -> None:
    """Writes results between the section's markers, below a table with machine, date and command."""
    environment = machine_info.describe()
    table = markdown.environment_table({name: environment[name] for name in ABOUT}, command_line())
    markdown.replace_section(file, section, f"{table}\n\n{content}")
    print(f"\n{content}\n\nwritten into {file}", flush=True)


def command_line() -> str:
    return shlex.join(["python", "-m", "tests.reliability", *sys.argv[1:]])


def plot_soak(results: "SoakResults", file: Path) -> None:
    """Plots the memory of each worker (top) and the latency (bottom) over time in minutes."""
    import matplotlib
    from matplotlib.figure import Figure

    from tests.bench.report.plots import SETTINGS, save

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        memory, latency = figure.subplots(2, 1, sharex=True)
        for number, worker in enumerate(results.workers()):
            usage = [(at_s / 60, one[worker].resident_bytes / 1e6) for at_s, one in results.samples if worker in one]
            memory.plot(*zip(*usage, strict=True), label=f"worker {number}")
        memory.set(ylabel="resident MB", ylim=(0, None))
        windows = [sorted(window) for window in results.statistics.latencies_ms]
        for part, name in ((0.5, "p50"), (0.99, "p99")):
            at = [number * results.statistics.window_s / 60 for number, window in enumerate(windows) if window]
            latency.plot(at, [window[int(part * (len(window) - 1))] for window in windows if window], label=name)
        latency.set(xlabel="minutes", ylabel="ms", yscale="log")
        for axes in (memory, latency):
            axes.grid(alpha=0.25)
            axes.legend(frameon=False)
        save(figure, file)
