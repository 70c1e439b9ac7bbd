"""More requests than a service can answer: h2load at a rate, or as fast as it can, and what became of each request."""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import TIMEOUT_S, need
from tests.bench.request_bodies import Body

OK, REFUSED = 200, 429
PROCESSES = 16


class Sent(NamedTuple):
    """One request, from when it was sent (seconds from the first one) until it was answered. -1: never answered."""

    at_s: float
    took_s: float
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


def flood(url: str, body: Body, connections: int, seconds: float, requests_per_s: float | None = None) -> list[Sent]:
    """Every request that `connections` send in that time: so many a second, or each its next one after an answer.

    All connections of one h2load send at once, so there are many of them, evenly apart. At a rate, a connection whose
    answer is late sends what was due meanwhile when it has it: over HTTP/1.1 more can be offered only by more of them.
    """
    need("h2load")
    share = max(1, connections // PROCESSES)
    apart_s = 0.0 if requests_per_s is None else share / requests_per_s
    rate = [] if requests_per_s is None else [f"--rps={requests_per_s / PROCESSES / share:.6f}"]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{number}.log" for number in range(PROCESSES)]
        loads = []
        for number, log in enumerate(logs):
            loads.append(_start(url, body, number, share, rate, seconds, log))
            time.sleep(apart_s)
        for load in loads:
            load.wait(seconds + 2 * TIMEOUT_S)
        return parse("".join(log.read_text() for log in logs))


def parse(log: str) -> list[Sent]:
    """Lines of start (microseconds), status and duration (microseconds), of several h2loads, in order of sending."""
    lines = sorted(tuple(map(int, line.split("\t")[:3])) for line in log.splitlines())
    if not lines:
        raise CannotMeasure("h2load got no answer at all.")
    return [Sent((start_us - lines[0][0]) / 1e6, took_us / 1e6, status) for start_us, status, took_us in lines]


def outcome(sent: Sequence[Sent], begin_s: float, end_s: float) -> Outcome:
    """Of what was answered, and of what was sent, between these moments."""
    answered = [one for one in sent if begin_s <= one.at_s + one.took_s < end_s and one.status > 0]
    took = {status: sorted(one.took_s * 1000 for one in answered if one.status == status) for status in (OK, REFUSED)}
    seconds = end_s - begin_s
    return Outcome(
        sent_per_s=sum(begin_s <= one.at_s < end_s for one in sent) / seconds,
        goodput_per_s=len(took[OK]) / seconds,
        refused_per_s=len(took[REFUSED]) / seconds,
        other=sum(one.status not in (OK, REFUSED) for one in sent),
        p50_ms=_quantile(took[OK], 0.5),
        p99_ms=_quantile(took[OK], 0.99),
        refused_p99_ms=_quantile(took[REFUSED], 0.99),
    )


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[int(part * (len(ordered) - 1))] if ordered else 0.0


def _start(
    url: str, body: Body, number: int, connections: int, rate: Sequence[str], seconds: float, log: Path
) -> subprocess.Popen[bytes]:
    headers = [part for name, value in body.headers().items() for part in ("-H", f"{name}: {value}")]
    how = [*rate, f"-c{connections}", "-t1", f"-D{round(seconds * 1000)}ms", f"--log-file={log}"]
    command = ["h2load", "--h1", *how, "-d", str(body.file(number % body.count)), *headers, url]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
