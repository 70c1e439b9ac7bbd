"""The sections of tests/bench/README.md, as Markdown. Every figure comes from what was measured."""

from collections.abc import Sequence
from statistics import median

from tests.bench.compare_peers import OURS, Compared
from tests.bench.load_generators.closed_loop import Fired
from tests.bench.microbenchmark import SIZES
from tests.bench.overload import Overloaded
from tests.bench.peers.servers import PEERS
from tests.bench.photographs import Photographed
from tests.bench.report.markdown import about, table
from tests.bench.stage_timing.timers import STAGES
from tests.bench.throughput import Measured, middle, void, why_void

OVERLOAD_HEAD = ["load", "offered", "peak/s", "sent/s", "good/s", "refused/s", "good, of the peak", "p50 ms", "p99 ms"]
OVERLOAD_HEAD += ["p99 ms of a refusal", "recovered after s", "us a good answer, peak", "us a good answer"]
PHOTOGRAPHS_HEAD = ["model", "images/s", "images/s without a service", "part of it", "p50 ms", "p99 ms"]


def alone(found: Measured, command: str, plot: str) -> str:
    """The section about Convoy alone."""
    parts = [
        about(found.about, command),
        _missing(found),
        "### Most that it answers",
        _peaks(found),
        f"![p99 latency over images per second, at each number of connections]({plot})",
        "### At a constant rate, 60 % of its own peak",
        _steady(found),
        "### Processor time of a request, microseconds by stage",
        _stages(found),
        "### The floor: onnxruntime alone",
        _raw(found),
        "### Start and memory",
        f"Ready {median(found.ready_s):.2f} s after the start of the process; {_mb(found.resident_bytes)} MB resident "
        "after all loads, workers together.",
    ]
    return "\n\n".join(part for part in parts if part)


def beside(found: Compared, command: str, plot: str) -> str:
    """The section about Convoy and its peers."""
    parts = [
        about(found.about, command),
        f"![images per second of each server, by load]({plot})",
        "### Most that each answers",
        _servers(found),
        "### Convoy over the peer, images per second",
        _ratios(found),
        "### At the same constant rate, 60 % of the slower one's peak",
        _same_rate(found),
    ]
    return "\n\n".join(parts)


def overload(found: Overloaded, command: str) -> str:
    """The section about more load than can be answered."""
    rows = []
    for (load, factor), steps in found.steps.items():
        floods = [step.flood for step in steps]
        rates = _medians([step.peak for step in steps], "goodput_per_s")
        rates += _medians(floods, "sent_per_s", "goodput_per_s", "refused_per_s")
        latencies = _medians(floods, "p50_ms", "p99_ms", "refused_p99_ms")
        recovered_s = f"{median(step.recovery_s for step in steps):.2f}"
        cpu_us = _medians(steps, "peak_cpu_us", "flood_cpu_us")
        rows.append([load, f"{factor}x", *rates, f"{found.kept(load, factor):.0%}", *latencies, recovered_s, *cpu_us])
    return f"{about(found.about, command)}\n\n{table(OVERLOAD_HEAD, rows)}"


def photographs(found: Photographed, command: str) -> str:
    """The section about photographs through a large network."""
    rows = []
    for model, rounds in found.served.items():
        per_s = [median(fired.requests_per_s for fired in rounds), median(found.alone_per_s[model])]
        latencies = [median(fired.p50_ms for fired in rounds), median(fired.p99_ms for fired in rounds)]
        rows.append([model, *(f"{value:,.1f}" for value in per_s), f"{found.kept(model):.2f}"])
        rows[-1] += [f"{value:,.0f}" for value in latencies]
    return f"{about(found.about, command)}\n\n{table(PHOTOGRAPHS_HEAD, rows)}"


def _medians(rounds: Sequence[object], *names: str) -> list[str]:
    return [f"{median(getattr(one, name) for one in rounds):,.0f}" for name in names]


def cells(fired: Sequence[Fired], images: int) -> list[str]:
    """Requests/s, images/s, p50 and p99; a load with a failed request has no figures."""
    got = middle(list(fired))
    if void(list(fired)):
        return [f"void: {why_void(list(fired))}", "", "", ""]
    return [
        f"{got.requests_per_s:,.0f}",
        f"{got.requests_per_s * images:,.0f}",
        f"{got.p50_ms:.2f}",
        f"{got.p99_ms:.2f}",
    ]


def _servers(found: Compared) -> str:
    rows = [[load, _title(server), *cells(fired, found.images(load))] for (load, server), fired in _sorted(found)]
    return table(["load", "server", "requests/s", "images/s", "p50 ms", "p99 ms"], rows)


def _sorted(found: Compared) -> list[tuple[tuple[str, str], list[Fired]]]:
    """By load in the order of measuring, within it the fastest first."""
    order = list(dict.fromkeys(load for load, _ in found.fired))
    return sorted(found.fired.items(), key=lambda item: (order.index(item[0][0]), -middle(item[1]).requests_per_s))


def _ratios(found: Compared) -> str:
    rows = []
    for load, peer in found.shared():
        ours, theirs = found.fired[load, OURS], found.fired[load, peer]
        rows.append([load, _title(peer), _ratio(ours, theirs)])
    decoding = found.fired.get(("image", OURS)), found.fired.get(("v2 json", "triton"))
    if decoding[0] and decoding[1]:
        rows.append(["image, against v2 json", f"{_title('triton')}, which decodes nothing", _ratio(*decoding)])
    return table(["load", "peer", "ratio"], rows)


def _ratio(ours: list[Fired], theirs: list[Fired]) -> str:
    if void(ours) or void(theirs):
        return "void"
    return f"{middle(ours).requests_per_s / middle(theirs).requests_per_s:.2f}"


def _same_rate(found: Compared) -> str:
    rows = []
    for (load, peer), pair in found.steady.items():
        for server, fired in pair.items():
            requests_per_s, _, *latencies = cells(fired, 1)
            rows.append([f"{load}, against {_title(peer)}", _title(server), requests_per_s, *latencies])
    return table(["load", "server", "requests/s", "p50 ms", "p99 ms"], rows)


def _title(server: str) -> str:
    return "**Convoy**" if server == OURS else PEERS[server].title


def _missing(found: Measured) -> str:
    return f"Not offered by this Convoy: {', '.join(found.missing)}." if found.missing else ""


def _peaks(found: Measured) -> str:
    rows = [
        [load, str(connections), *cells(fired, found.images[load])]
        for (load, connections), fired in found.fired.items()
    ]
    return table(["load", "connections", "requests/s", "images/s", "p50 ms", "p99 ms"], rows)


def _steady(found: Measured) -> str:
    rows = [[load, *cells(fired, found.images[load])] for load, fired in found.steady.items()]
    return table(["load", "requests/s", "images/s", "p50 ms", "p99 ms"], rows)


def _stages(found: Measured) -> str:
    rows = []
    for load in found.images:
        rounds = found.stages.get(load)
        if not rounds or load in found.stages_void:
            rows.append([load, "void", *[""] * len(STAGES)])
            continue
        times_us = [median(times[stage] for times in rounds) for stage in STAGES]
        whole_us = median(sum(times.values()) for times in rounds)
        rows.append([load, *(f"{us:,.0f}" for us in times_us), f"{whole_us:,.0f}"])
    return table(["load", *STAGES, "whole"], rows)


def _raw(found: Measured) -> str:
    threads = sorted({threads for threads, _ in found.raw})
    head = ["batch size", *(f"images/s, {count} thread{'s' * (count > 1)}" for count in threads)]
    rows = [[str(size), *(f"{median(found.raw[count, size]):,.0f}" for count in threads)] for size in SIZES]
    return f"{table(head, rows)}\n\n{_idle(found)}"


def _idle(found: Measured) -> str:
    """What the service adds for one client who waits for each answer."""
    decode_us, compute_us = (
        median(found.decode_us),
        1e6 / max(median(found.raw[t, 1]) for t, size in found.raw if size == 1),
    )
    text = f"Decoding takes {decode_us:.0f} us an image on one thread."
    if ("image", 1) not in found.fired or void(found.fired["image", 1]):
        return text
    p50_us = middle(found.fired["image", 1]).p50_ms * 1000
    floor_us = decode_us + compute_us
    return (
        f"{text} With {compute_us:.0f} us for a batch of one that makes {floor_us:.0f} us; one client alone waits "
        f"{p50_us:.0f} us (p50), so the service and the connection add {p50_us - floor_us:.0f} us."
    )


def _mb(values: Sequence[float]) -> str:
    return f"{median(values) / 1e6:.0f}"
