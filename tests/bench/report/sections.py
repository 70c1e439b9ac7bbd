"""The sections of tests/bench/README.md as Markdown. All figures come from measurements."""

from collections.abc import Sequence
from statistics import median

from tests.bench.compare_peers import CONVOY, PeerResults
from tests.bench.load_generators.closed_loop import LoadResult
from tests.bench.microbenchmark import SIZES
from tests.bench.peers.servers import PEERS
from tests.bench.photographs import PhotographResults
from tests.bench.report.markdown import environment_table, table
from tests.bench.stage_timing.timers import STAGES
from tests.bench.throughput import ThroughputResults, is_void, median_result, void_reason

PHOTOGRAPHS_COLUMNS = ["model", "images/s", "images/s without a service", "fraction of the loop", "p50 ms", "p99 ms"]


def throughput(results: ThroughputResults, command: str, plot: str) -> str:
    """Returns the section about Convoy alone."""
    parts = [
        environment_table(results.environment, command),
        _unsupported(results),
        "### Peak throughput",
        _closed_loop(results),
        f"![p99 latency over images per second, at each number of connections]({plot})",
        "### At a constant rate, 60% of its own peak",
        _open_loop(results),
        "### Processor time per request, microseconds by stage",
        _stages(results),
        "### Upper bound: onnxruntime alone",
        _microbenchmark(results),
        "### Start and memory",
        f"The service is ready {median(results.ready_s):.2f} s after the start of the process. After all loads, its "
        f"workers together use {_mb(results.resident_bytes)} MB of resident memory.",
    ]
    return "\n\n".join(part for part in parts if part)


def peers(results: PeerResults, command: str, plot: str) -> str:
    """Returns the section about Convoy and its peers."""
    parts = [
        environment_table(results.environment, command),
        f"![images per second of each server, by load]({plot})",
        "### Peak throughput of each server",
        _servers(results),
        "### Ratio of Convoy to each peer, images per second",
        _ratios(results),
        "### At the same constant rate, 60% of the slower server's peak",
        _same_rate(results),
    ]
    return "\n\n".join(parts)


def photographs(results: PhotographResults, command: str) -> str:
    """Returns the section about photographs and a large network."""
    rows = []
    for model, rounds in results.served.items():
        per_s = [median(rounds.requests_per_s for rounds in rounds), median(results.loop_per_s[model])]
        latencies = [median(rounds.p50_ms for rounds in rounds), median(rounds.p99_ms for rounds in rounds)]
        rows.append([model, *(f"{value:,.1f}" for value in per_s), f"{results.service_ratio(model):.2f}"])
        rows[-1] += [f"{value:,.0f}" for value in latencies]
    return f"{environment_table(results.environment, command)}\n\n{table(PHOTOGRAPHS_COLUMNS, rows)}"


def cells(rounds: Sequence[LoadResult], images: int) -> list[str]:
    """Returns requests/s, images/s, p50 and p99. A load with a failed request has no figures."""
    median_round = median_result(list(rounds))
    if is_void(list(rounds)):
        return [f"void: {void_reason(list(rounds))}", "", "", ""]
    return [
        f"{median_round.requests_per_s:,.0f}",
        f"{median_round.requests_per_s * images:,.0f}",
        f"{median_round.p50_ms:.2f}",
        f"{median_round.p99_ms:.2f}",
    ]


def _servers(results: PeerResults) -> str:
    rows = [[load, _title(server), *cells(rounds, results.images(load))] for (load, server), rounds in _sorted(results)]
    return table(["load", "server", "requests/s", "images/s", "p50 ms", "p99 ms"], rows)


def _sorted(results: PeerResults) -> list[tuple[tuple[str, str], list[LoadResult]]]:
    """Sorts by load in the order of measurement, and within a load by speed, the fastest first."""
    order = list(dict.fromkeys(load for load, _ in results.closed_loop))
    return sorted(
        results.closed_loop.items(), key=lambda item: (order.index(item[0][0]), -median_result(item[1]).requests_per_s)
    )


def _ratios(results: PeerResults) -> str:
    rows = []
    for load, peer in results.comparable():
        ours, theirs = results.closed_loop[load, CONVOY], results.closed_loop[load, peer]
        rows.append([load, _title(peer), _ratio(ours, theirs)])
    decoding = results.closed_loop.get(("image", CONVOY)), results.closed_loop.get(("v2 json", "triton"))
    if decoding[0] and decoding[1]:
        rows.append(["image, against v2 json", f"{_title('triton')}, which decodes no images", _ratio(*decoding)])
    return table(["load", "peer", "ratio"], rows)


def _ratio(ours: list[LoadResult], theirs: list[LoadResult]) -> str:
    if is_void(ours) or is_void(theirs):
        return "void"
    return f"{median_result(ours).requests_per_s / median_result(theirs).requests_per_s:.2f}"


def _same_rate(results: PeerResults) -> str:
    rows = []
    for (load, peer), pair in results.open_loop.items():
        for server, rounds in pair.items():
            requests_per_s, _, *latencies = cells(rounds, 1)
            rows.append([f"{load}, against {_title(peer)}", _title(server), requests_per_s, *latencies])
    return table(["load", "server", "requests/s", "p50 ms", "p99 ms"], rows)


def _title(server: str) -> str:
    return "**Convoy**" if server == CONVOY else PEERS[server].title


def _unsupported(results: ThroughputResults) -> str:
    return f"Not offered by this Convoy: {', '.join(results.unsupported)}." if results.unsupported else ""


def _closed_loop(results: ThroughputResults) -> str:
    rows = [
        [load, str(connections), *cells(rounds, results.images[load])]
        for (load, connections), rounds in results.closed_loop.items()
    ]
    return table(["load", "connections", "requests/s", "images/s", "p50 ms", "p99 ms"], rows)


def _open_loop(results: ThroughputResults) -> str:
    rows = [[load, *cells(rounds, results.images[load])] for load, rounds in results.open_loop.items()]
    return table(["load", "requests/s", "images/s", "p50 ms", "p99 ms"], rows)


def _stages(results: ThroughputResults) -> str:
    rows = []
    for load in results.images:
        rounds = results.stages.get(load)
        if not rounds or load in results.stages_void:
            rows.append([load, "void", *[""] * len(STAGES)])
            continue
        times_us = [median(times[stage] for times in rounds) for stage in STAGES]
        total_us = median(sum(times.values()) for times in rounds)
        rows.append([load, *(f"{us:,.0f}" for us in times_us), f"{total_us:,.0f}"])
    return table(["load", *STAGES, "whole"], rows)


def _microbenchmark(results: ThroughputResults) -> str:
    threads = sorted({threads for threads, _ in results.microbenchmark})
    head = ["batch size", *(f"images/s, {count} thread{'s' * (count > 1)}" for count in threads)]
    rows = [
        [str(size), *(f"{median(results.microbenchmark[count, size]):,.0f}" for count in threads)] for size in SIZES
    ]
    return f"{table(head, rows)}\n\n{_service_overhead(results)}"


def _service_overhead(results: ThroughputResults) -> str:
    """Describes the latency that the service adds for a single client that waits for each response."""
    decode_us, compute_us = (
        median(results.decode_us),
        1e6 / max(median(results.microbenchmark[t, 1]) for t, size in results.microbenchmark if size == 1),
    )
    text = f"Decoding takes {decode_us:.0f} us per image on one thread."
    if ("image", 1) not in results.closed_loop or is_void(results.closed_loop["image", 1]):
        return text
    p50_us = median_result(results.closed_loop["image", 1]).p50_ms * 1000
    floor_us = decode_us + compute_us
    return (
        f"{text} Together with {compute_us:.0f} us for a batch of one image, the minimum is {floor_us:.0f} us. A "
        f"single client waits {p50_us:.0f} us (p50), so the service and the connection add {p50_us - floor_us:.0f} us."
    )


def _mb(values: Sequence[float]) -> str:
    return f"{median(values) / 1e6:.0f}"
