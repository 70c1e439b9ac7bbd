"""The plots of the report as SVG. The same figures give the same file."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from tests.bench.compare_peers import CONVOY, PeerResults
from tests.bench.peers.servers import PEERS
from tests.bench.throughput import ThroughputResults, is_void, median_result

SETTINGS = {
    "svg.hashsalt": "convoy",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
THOUSANDS = StrMethodFormatter("{x:,.0f}")


def throughput(results: ThroughputResults, file: Path) -> None:
    """Plots p99 latency against images/s, with one line per load and one point per number of connections."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes: Axes = figure.subplots()
        for load in results.images:
            points = [
                (c, median_result(f)) for (name, c), f in results.closed_loop.items() if name == load and not is_void(f)
            ]
            images_per_s = [rounds.requests_per_s * results.images[load] for _, rounds in points]
            p99_ms = [rounds.p99_ms for _, rounds in points]
            axes.plot(images_per_s, p99_ms, marker="o", markersize=4, label=load)
            for (connections, _), x, y in zip(points, images_per_s, p99_ms, strict=True):
                axes.annotate(str(connections), (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7)
        axes.set(xscale="log", yscale="log", xlabel="images/s", ylabel="p99 latency, ms")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(THOUSANDS)
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25, which="both", linewidth=0.5)
        figure.legend(title="load (points: connections)", loc="outside right upper", frameon=False)
        save(figure, file)


def peers(results: PeerResults, file: Path) -> None:
    """Plots one panel per load with one bar per server, Convoy first.

    Loads that Convoy does not support are left out.
    """
    loads = list(dict.fromkeys(load for load, server in results.closed_loop if server == CONVOY))
    bars = [sum(name == load for name, _ in results.closed_loop) for load in loads]
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(8, 0.6 * len(loads) + 0.25 * sum(bars)), layout="constrained")
        panels = figure.subplots(len(loads), 1, squeeze=False, height_ratios=bars)[:, 0]
        for axes, load in zip(panels, loads, strict=True):
            _bars(axes, load, results)
        figure.supxlabel("images/s", fontsize=9)
        save(figure, file)


def _bars(axes: Axes, load: str, results: PeerResults) -> None:
    per_s = {
        server: median_result(rounds).requests_per_s * results.images(load)
        for (name, server), rounds in results.closed_loop.items()
        if name == load and not is_void(rounds)
    }
    servers = [CONVOY, *sorted(per_s.keys() - {CONVOY}, key=lambda server: -per_s[server])] if CONVOY in per_s else []
    titles = ["Convoy" if server == CONVOY else PEERS[server].title for server in servers]
    colors = ["tab:blue" if server == CONVOY else "silver" for server in servers]
    bars = axes.barh(titles, [per_s[server] for server in servers], color=colors)
    axes.bar_label(bars, labels=[f"{per_s[server]:,.0f}" for server in servers], padding=3, fontsize=8)
    axes.set_title(load, loc="left", fontsize=9)
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.invert_yaxis()
    axes.margins(x=0.12)


def save(figure: Figure, file: Path) -> None:
    figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")
