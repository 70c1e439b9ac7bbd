"""Load from outside, over loopback: wrk for the most that a server can do, h2load for a constant rate."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.bodies import Body
from tests.bench.errors import CannotMeasure

SCRIPT = Path(__file__).parent / "post.lua"
PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}
TIMEOUT_S = 30
RATE_KEPT = 0.97
LEAST_REQUESTS = 5  # of each connection, at a constant rate
WARM_UP = 0.2  # of a run at a constant rate; its answers do not count


class Fired(NamedTuple):
    """One load. With a failed request it is void: it says nothing about speed."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    failed: int


def need(tool: str) -> None:
    """Raises CannotMeasure, saying what to install, when the tool is missing."""
    if shutil.which(tool) is None:
        package = PACKAGES[tool]
        raise CannotMeasure(f"{tool} is missing. Install it: on Debian or Ubuntu `apt-get install {package}`.")


def wrk(url: str, body: Body, connections: int, seconds: float) -> Fired:
    """As many requests as get answered, each connection sending its next one when it has its answer."""
    need("wrk")
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        f"--timeout={TIMEOUT_S}s",
        "-s",
        str(SCRIPT),
        url,
    ]
    environment = {"BODY": str(body.stem), "BODIES": str(body.count), "CONTENT_TYPE": body.content_type}
    if body.json_length is not None:
        environment["JSON_LENGTH"] = str(body.json_length)
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise CannotMeasure(f"wrk failed on {url}: {(done.stderr or done.stdout).strip()[-300:]}")
    return parse_wrk(done.stdout)


def parse_wrk(output: str) -> Fired:
    """The line that post.lua writes, the last one of wrk's output."""
    told = json.loads(output.strip().splitlines()[-1])
    return Fired(
        requests_per_s=told["answers"] / told["seconds"],
        p50_ms=told["p50_us"] / 1000,
        p99_ms=told["p99_us"] / 1000,
        requests=told["answers"],
        failed=told["failed"],
    )


def constant_rate(url: str, body: Body, requests_per_s: float, connections: int, seconds: float) -> Fired:
    """That many requests a second, evenly, whatever the answers do; a late one has waited since it was due.

    An h2load of its own for each connection, since its log does not tell connections apart. Requests that were due and
    never answered count as failed: the rate was too high for this server, or something else used the machine.
    """
    need("h2load")
    interval_s = connections / requests_per_s
    seconds = max(seconds, LEAST_REQUESTS * interval_s)
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{number}.log" for number in range(connections)]
        loads = []
        for number, log in enumerate(logs):
            loads.append(_h2load(url, body, body.file(number), interval_s, seconds, log))
            time.sleep(interval_s / connections)
        for load in loads:
            load.wait(seconds + 2 * TIMEOUT_S)
        answers = [answer for log in logs for answer in read_log(log.read_text(), interval_s)]
    return _summed(answers, requests_per_s, connections, seconds)


class Answer(NamedTuple):
    """One answer at a constant rate. `latency_s` runs from when the request was due."""

    due_s: float
    latency_s: float
    good: bool


def read_log(log: str, interval_s: float) -> list[Answer]:
    """Answers of one connection from h2load's log: lines of start (microseconds), status, and duration.

    A request that was due while the answer before it was still out could only start late: it counts from when it was
    due. Otherwise it counts from its start, so that h2load's timer (a millisecond) is not taken for the server's.
    """
    answers: list[Answer] = []
    first_s, free_s = 0.0, 0.0
    for number, line in enumerate(log.splitlines()):
        start_us, status, duration_us = line.split("\t")[:3]
        start_s, end_s = int(start_us) / 1e6, (int(start_us) + int(duration_us)) / 1e6
        first_s = first_s or start_s
        due_s = first_s + number * interval_s
        waited_since_s = due_s if free_s > due_s else start_s
        answers.append(Answer(due_s - first_s, end_s - min(waited_since_s, start_s), status == "200"))
        free_s = end_s
    return answers


def _h2load(url: str, body: Body, file: Path, interval_s: float, seconds: float, log: Path) -> subprocess.Popen[bytes]:
    headers = [part for name, value in body.headers().items() for part in ("-H", f"{name}: {value}")]
    rate = [f"--rps={1 / interval_s:.6f}", "-c1", "-t1", f"-D{round(seconds * 1000)}ms", f"--log-file={log}"]
    command = ["h2load", "--h1", *rate, "-d", str(file), *headers, url]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _summed(answers: Sequence[Answer], requests_per_s: float, connections: int, seconds: float) -> Fired:
    counted = [answer for answer in answers if answer.due_s >= WARM_UP * seconds]
    missing = int(RATE_KEPT * requests_per_s * seconds) - connections - len(answers)
    latencies_ms = sorted(answer.latency_s * 1000 for answer in counted) or [0.0]
    return Fired(
        requests_per_s=requests_per_s,
        p50_ms=median(latencies_ms),
        p99_ms=latencies_ms[int(0.99 * (len(latencies_ms) - 1))],
        requests=len(counted),
        failed=sum(not answer.good for answer in answers) + max(0, missing),
    )
