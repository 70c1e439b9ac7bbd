"""Closed-loop load with wrk: each connection sends its next request after the last response, for peak throughput."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.bench.errors import CannotMeasure
from tests.bench.request_bodies import Body

SCRIPT = Path(__file__).parent / "post.lua"
PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "haproxy": "haproxy"}
TIMEOUT_S = 30


class LoadResult(NamedTuple):
    """The result of one load. If a request failed or is missing, the load is void, because its speed means nothing."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    failed: int
    missing: int = 0
    """At a constant rate: number of requests that were due but not answered by the end."""


def require_tool(tool: str) -> None:
    """Raises CannotMeasure with the package to install if the tool is missing."""
    if shutil.which(tool) is None:
        package = PACKAGES[tool]
        raise CannotMeasure(f"{tool} is missing. Install it: on Debian or Ubuntu `apt-get install {package}`.")


def wrk(url: str, body: Body, connections: int, seconds: float) -> LoadResult:
    """Loads a server with wrk: each connection sends its next request as soon as it has its response."""
    require_tool("wrk")
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
    process = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if process.returncode:
        raise CannotMeasure(f"wrk failed on {url}: {(process.stderr or process.stdout).strip()[-300:]}")
    return parse_wrk(process.stdout)


def parse_wrk(output: str) -> LoadResult:
    """Parses the line that post.lua writes, which is the last line of wrk's output."""
    summary = json.loads(output.strip().splitlines()[-1])
    return LoadResult(
        requests_per_s=summary["answers"] / summary["seconds"],
        p50_ms=summary["p50_us"] / 1000,
        p99_ms=summary["p99_us"] / 1000,
        requests=summary["answers"],
        failed=summary["failed"],
    )
