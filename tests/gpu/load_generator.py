"""A closed-loop load generator for machines without wrk: several processes with several connections each."""

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
START_DELAY_S = 0.05


def run_load(url: str, body: Body, connections: int, seconds: float) -> LoadResult:
    """Sends requests in a closed loop for `seconds`, a quarter of which is warm-up. Raises CannotMeasure."""
    process_count = min(PROCESSES, connections)
    connections_per_process = [
        connections * (n + 1) // process_count - connections * n // process_count for n in range(process_count)
    ]
    settings = {"url": url, "headers": body.headers(), "seconds": seconds}
    processes = [
        _start(settings | {"files": _rotated_files(body, number), "connections": n})
        for number, n in enumerate(connections_per_process)
    ]
    try:
        _start_together(processes)
        answers = [_read(process, seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    counted_s = seconds * (1 - WARM_UP)
    return _summarize(
        [ms for one in answers for ms in one["latencies_ms"]], sum(one["failed"] for one in answers), counted_s
    )


def _summarize(latencies_ms: Sequence[float], failed: int, seconds: float) -> LoadResult:
    ordered = sorted(latencies_ms) or [0.0]
    p99_ms = ordered[int(0.99 * (len(ordered) - 1))]
    return LoadResult(len(latencies_ms) / seconds, median(ordered), p99_ms, len(latencies_ms), failed)


def _rotated_files(body: Body, number: int) -> list[str]:
    """Rotates the files, so that every process starts with another one."""
    return [str(body.file(number + i)) for i in range(body.count)]


def _start(settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.gpu.load_client", json.dumps(settings)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


def _start_together(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Once all are ready, sends all of them the same start time."""
    for process in processes:
        if process.stdout.readline() != b"ready\n":  # type: ignore[union-attr]
            raise CannotMeasure("A load generator did not start; see above.")
    begin_s = time.monotonic() + START_DELAY_S
    for process in processes:
        process.stdin.write(f"{begin_s}\n".encode())  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]


def _read(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    try:
        output, _ = process.communicate(timeout=START_DELAY_S + seconds + TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise CannotMeasure("The service did not answer in time.") from None
    if process.returncode:
        raise CannotMeasure("A load generator failed; see above.")
    return json.loads(output)  # type: ignore[no-any-return]
