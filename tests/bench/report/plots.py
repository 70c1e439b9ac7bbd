"""The plots of the report, as SVG that differs only where the figures do."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from tests.bench.compare_peers import OURS, Compared
from tests.bench.peers.servers import PEERS
from tests.bench.throughput import Measured, middle, void

SETTINGS = {
    "svg.hashsalt": "convoy",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
THOUSANDS = StrMethodFormatter("{x:,.0f}")


def throughput(found: Measured, file: Path) -> None:
    """p99 over images/s: a line for each load, a point for each number of connections."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes: Axes = figure.subplots()
        for load in found.images:
            points = [(c, middle(f)) for (name, c), f in found.fired.items() if name == load and not void(f)]
            across = [fired.requests_per_s * found.images[load] for _, fired in points]
            up = [fired.p99_ms for _, fired in points]
            axes.plot(across, up, marker="o", markersize=4, label=load)
            for (connections, _), x, y in zip(points, across, up, strict=True):
                axes.annotate(str(connections), (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7)
        axes.set(xscale="log", yscale="log", xlabel="images/s", ylabel="p99 latency, ms")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(THOUSANDS)
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25, which="both", linewidth=0.5)
        figure.legend(title="load (points: connections)", loc="outside right upper", frameon=False)
        save(figure, file)


def peers(found: Compared, file: Path) -> None:
    """A panel for each load, a bar for each server, Convoy's first; a load that Convoy cannot answer is left out."""
    loads = list(dict.fromkeys(load for load, server in found.fired if server == OURS))
    bars = [sum(name == load for name, _ in found.fired) for load in loads]
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(8, 0.6 * len(loads) + 0.25 * sum(bars)), layout="constrained")
        panels = figure.subplots(len(loads), 1, squeeze=False, height_ratios=bars)[:, 0]
        for axes, load in zip(panels, loads, strict=True):
            _bars(axes, load, found)
        figure.supxlabel("images/s", fontsize=9)
        save(figure, file)


def _bars(axes: Axes, load: str, found: Compared) -> None:
    per_s = {
        server: middle(fired).requests_per_s * found.images(load)
        for (name, server), fired in found.fired.items()
        if name == load and not void(fired)
    }
    servers = [OURS, *sorted(per_s.keys() - {OURS}, key=lambda server: -per_s[server])] if OURS in per_s else []
    titles = ["Convoy" if server == OURS else PEERS[server].title for server in servers]
    colours = ["tab:blue" if server == OURS else "silver" for server in servers]
    bars = axes.barh(titles, [per_s[server] for server in servers], color=colours)
    axes.bar_label(bars, labels=[f"{per_s[server]:,.0f}" for server in servers], padding=3, fontsize=8)
    axes.set_title(load, loc="left", fontsize=9)
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.invert_yaxis()
    axes.margins(x=0.12)


def save(figure: Figure, file: Path) -> None:
    figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")
