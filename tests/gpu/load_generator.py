"""A load generator where there is no wrk: processes of connections, each sending its next request at its answer."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import LoadResult
from tests.bench.request_bodies import Body
from tests.gpu.load_client import TIMEOUT_S, WARM_UP

PROCESSES = 8
STARTING_S = 0.05


def fire(url: str, body: Body, connections: int, seconds: float) -> LoadResult:
    """As many requests as get answered in `seconds`, a quarter of which is warm-up. Raises CannotMeasure."""
    processes = min(PROCESSES, connections)
    shares = [connections * (n + 1) // processes - connections * n // processes for n in range(processes)]
    told = {"url": url, "headers": body.headers(), "seconds": seconds}
    running = [_start(told | {"files": _files(body, number), "connections": n}) for number, n in enumerate(shares)]
    try:
        _begin(running)
        answers = [_read(process, seconds) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    counted_s = seconds * (1 - WARM_UP)
    return _summarize(
        [ms for one in answers for ms in one["took_ms"]], sum(one["failed"] for one in answers), counted_s
    )


def _summarize(took_ms: Sequence[float], failed: int, seconds: float) -> LoadResult:
    ordered = sorted(took_ms) or [0.0]
    p99_ms = ordered[int(0.99 * (len(ordered) - 1))]
    return LoadResult(len(took_ms) / seconds, median(ordered), p99_ms, len(took_ms), failed)


def _files(body: Body, number: int) -> list[str]:
    """Every process begins with another file."""
    return [str(body.file(number + i)) for i in range(body.count)]


def _start(told: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.gpu.load_client", json.dumps(told)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


def _begin(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Once all are ready, tells all the same moment."""
    for process in running:
        if process.stdout.readline() != b"ready\n":  # type: ignore[union-attr]
            raise CannotMeasure("A load generator did not start; see above.")
    begin_s = time.monotonic() + STARTING_S
    for process in running:
        process.stdin.write(f"{begin_s}\n".encode())  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]


def _read(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    try:
        output, _ = process.communicate(timeout=STARTING_S + seconds + TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise CannotMeasure("The service did not answer in time.") from None
    if process.returncode:
        raise CannotMeasure("A load generator failed; see above.")
    return json.loads(output)  # type: ignore[no-any-return]
