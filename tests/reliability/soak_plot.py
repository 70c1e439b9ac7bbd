"""The plots of the report, as SVG that differs only where the figures do."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from tests.bench.report.plots import SETTINGS, save
from tests.reliability.soak import Soaked


def soaked(found: Soaked, file: Path) -> None:
    """Memory of each worker above, latency below, over the minutes."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        memory, latency = figure.subplots(2, 1, sharex=True)
        for number, worker in enumerate(found.workers()):
            held = [(at_s / 60, one[worker].resident_bytes / 1e6) for at_s, one in found.samples if worker in one]
            memory.plot(*zip(*held, strict=True), label=f"worker {number}")
        memory.set(ylabel="resident MB", ylim=(0, None))
        windows = [sorted(window) for window in found.driven.latencies_ms]
        for part, name in ((0.5, "p50"), (0.99, "p99")):
            at = [number * found.driven.window_s / 60 for number, window in enumerate(windows) if window]
            latency.plot(at, [window[int(part * (len(window) - 1))] for window in windows if window], label=name)
        latency.set(xlabel="minutes", ylabel="ms", yscale="log")
        for axes in (memory, latency):
            axes.grid(alpha=0.25)
            axes.legend(frameon=False)
        save(figure, file)
