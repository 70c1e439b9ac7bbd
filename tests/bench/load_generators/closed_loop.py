"""Closed-loop load: each wrk connection sends its next request after the answer to its last, for peak throughput."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import CannotMeasure
from tests.bench.request_bodies import Body

SCRIPT = Path(__file__).parent / "post.lua"
PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}
TIMEOUT_S = 30


class Fired(NamedTuple):
    """One load. With a failed or missing request it is void: it says nothing about speed."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    failed: int
    missing: int = 0
    """Of a constant rate: due, and not answered by the end."""


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
