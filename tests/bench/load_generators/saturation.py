"""More requests than a service can answer: h2load at a rate, or as fast as it can, and what became of each request."""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import TIMEOUT_S, require_tool
from tests.bench.request_bodies import Body

OK, REFUSED = 200, 429
PROCESSES = 16


class RequestRecord(NamedTuple):
    """One request, from when it was sent (seconds from the first one) until it was answered. -1: never answered."""

    start_s: float
    latency_s: float
    status: int


class Outcome(NamedTuple):
    """What a service made of a load, a second and per request. Latencies run from when a request was sent."""

    sent_per_s: float
    goodput_per_s: float
    """Answers with 200."""
    refused_per_s: float
    """Answers with 429."""
    other: int
    """Answers with neither, and none at all."""
    p50_ms: float
    p99_ms: float
    """Of the accepted."""
    refused_p99_ms: float


def saturate(
    url: str, body: Body, connections: int, seconds: float, requests_per_s: float | None = None
) -> list[RequestRecord]:
    """Every request that `connections` send in that time: so many a second, or each its next one after an answer.

    All connections of one h2load send at once, so there are many of them, evenly apart. At a rate, a connection whose
    answer is late sends what was due meanwhile when it has it: over HTTP/1.1 more can be offered only by more of them.
    """
    require_tool("h2load")
    connections_each = max(1, connections // PROCESSES)
    stagger_s = 0.0 if requests_per_s is None else connections_each / requests_per_s
    rate = [] if requests_per_s is None else [f"--rps={requests_per_s / PROCESSES / connections_each:.6f}"]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{number}.log" for number in range(PROCESSES)]
        processes = []
        for number, log in enumerate(logs):
            processes.append(_start(url, body, number, connections_each, rate, seconds, log))
            time.sleep(stagger_s)
        for process in processes:
            process.wait(seconds + 2 * TIMEOUT_S)
        return parse_h2load_logs("".join(log.read_text() for log in logs))


def parse_h2load_logs(log: str) -> list[RequestRecord]:
    """Lines of start (microseconds), status and duration (microseconds), of several h2loads, in order of sending."""
    lines = sorted(tuple(map(int, line.split("\t")[:3])) for line in log.splitlines())
    if not lines:
        raise CannotMeasure("h2load got no answer at all.")
    return [
        RequestRecord((start_us - lines[0][0]) / 1e6, duration_us / 1e6, status)
        for start_us, status, duration_us in lines
    ]


def summarize(records: Sequence[RequestRecord], begin_s: float, end_s: float) -> Outcome:
    """Of what was answered, and of what was sent, between these moments."""
    completed = [one for one in records if begin_s <= one.start_s + one.latency_s < end_s and one.status > 0]
    latencies_ms = {
        status: sorted(one.latency_s * 1000 for one in completed if one.status == status) for status in (OK, REFUSED)
    }
    seconds = end_s - begin_s
    return Outcome(
        sent_per_s=sum(begin_s <= one.start_s < end_s for one in records) / seconds,
        goodput_per_s=len(latencies_ms[OK]) / seconds,
        refused_per_s=len(latencies_ms[REFUSED]) / seconds,
        other=sum(one.status not in (OK, REFUSED) for one in records),
        p50_ms=_quantile(latencies_ms[OK], 0.5),
        p99_ms=_quantile(latencies_ms[OK], 0.99),
        refused_p99_ms=_quantile(latencies_ms[REFUSED], 0.99),
    )


def _quantile(sorted_values: Sequence[float], fraction: float) -> float:
    return sorted_values[int(fraction * (len(sorted_values) - 1))] if sorted_values else 0.0


def _start(
    url: str, body: Body, number: int, connections: int, rate: Sequence[str], seconds: float, log: Path
) -> subprocess.Popen[bytes]:
    headers = [part for name, value in body.headers().items() for part in ("-H", f"{name}: {value}")]
    options = [*rate, f"-c{connections}", "-t1", f"-D{round(seconds * 1000)}ms", f"--log-file={log}"]
    command = ["h2load", "--h1", *options, "-d", str(body.file(number % body.count)), *headers, url]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
