"""Open-loop load: h2load sends requests at a constant rate, whether or not the responses keep up."""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.load_generators.closed_loop import TIMEOUT_S, LoadResult, require_tool
from tests.bench.request_bodies import Body

MIN_RATE_FRACTION = 0.97
PROCESSES = 4  # processes of h2load, each with its own body
TIMER_S = 0.002
MIN_REQUESTS = 5  # per connection, at a constant rate
WARM_UP = 0.2  # fraction of a run in which responses do not count


def constant_rate(url: str, body: Body, requests_per_s: float, connections: int, seconds: float) -> LoadResult:
    """Sends requests at a constant rate, independent of responses. Latency counts from the moment a request was due.

    h2load posts only one body, so a few processes share the rate. One process per connection would need five times the
    processor time. Requests that were due but not answered count as missing: the rate was too high for this server, or
    the machine was busy with other work.
    """
    require_tool("h2load")
    interval_s = connections / requests_per_s
    seconds = max(seconds, MIN_REQUESTS * interval_s)
    connections_per_process = [
        connections * (n + 1) // PROCESSES - connections * n // PROCESSES for n in range(PROCESSES)
    ]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{number}.log" for number in range(PROCESSES)]
        processes = []
        for number, (connection_count, log) in enumerate(zip(connections_per_process, logs, strict=True)):
            if connection_count:
                process = _h2load(url, body, body.file(number), connection_count, interval_s, seconds, log)
                processes.append((process, connection_count, log))
                time.sleep(interval_s / PROCESSES)
        for process, _, _ in processes:
            process.wait(seconds + 2 * TIMEOUT_S)
        answers = [
            answer
            for _, connection_count, log in processes
            for answer in read_log(log.read_text(), connection_count, interval_s)
        ]
    return _summarize(answers, requests_per_s, connections, seconds)


class Answer(NamedTuple):
    """One response at a constant rate. `latency_s` counts from the moment the request was due."""

    due_s: float
    latency_s: float
    is_ok: bool


def read_log(log: str, connections: int, interval_s: float) -> list[Answer]:
    """Reads the responses from a log of h2load. Each line contains a start (microseconds), a status and a duration
    (microseconds).

    Each connection has a request due every `interval_s`, but can send it only after its last response. The n-th request
    that was sent is matched with the n-th request that was due. If a request was sent late by more than h2load's timer
    resolution, its latency counts from when it was due.
    """
    lines = sorted(tuple(map(int, line.split("\t")[:3])) for line in log.splitlines())
    answers = []
    for number, (start_us, status, duration_us) in enumerate(lines):
        due_s = number // connections * interval_s
        lag_s = (start_us - lines[0][0]) / 1e6 - due_s
        delay_s = lag_s if lag_s > TIMER_S else 0.0
        answers.append(Answer(due_s, delay_s + duration_us / 1e6, status == 200))
    return answers


def _h2load(
    url: str, body: Body, file: Path, connections: int, interval_s: float, seconds: float, log: Path
) -> subprocess.Popen[bytes]:
    headers = [part for name, value in body.headers().items() for part in ("-H", f"{name}: {value}")]
    rate = [f"--rps={1 / interval_s:.6f}", f"-c{connections}", "-t1", f"-D{round(seconds * 1000)}ms"]
    command = ["h2load", "--h1", *rate, f"--log-file={log}", "-d", str(file), *headers, url]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _summarize(answers: Sequence[Answer], requests_per_s: float, connections: int, seconds: float) -> LoadResult:
    after_warm_up = [answer for answer in answers if answer.due_s >= WARM_UP * seconds]
    missing = int(MIN_RATE_FRACTION * requests_per_s * seconds) - connections - len(answers)
    latencies_ms = sorted(answer.latency_s * 1000 for answer in after_warm_up) or [0.0]
    return LoadResult(
        requests_per_s=requests_per_s,
        p50_ms=median(latencies_ms),
        p99_ms=latencies_ms[int(0.99 * (len(latencies_ms) - 1))],
        requests=len(after_warm_up),
        failed=sum(not answer.is_ok for answer in answers),
        missing=max(0, missing),
    )
