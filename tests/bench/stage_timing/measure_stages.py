"""Measures the processor time of a request by stage, on one worker with one thread per run.

The total is the kernel's accounting for the unmodified service. The stages are measured in a service with timers. The
remainder is HTTP.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.convoy_process import CONVOY, PYTHON, Service, bench_settings, run_convoy
from tests.bench.errors import CannotMeasure
from tests.bench.load_generators.closed_loop import wrk
from tests.bench.processes import cpu_s
from tests.bench.request_bodies import Bodies
from tests.bench.stage_timing.timers import HTTP, PATH, STAGES
from tests.bench.workloads import Workload, supported_workloads

CONNECTIONS, BATCH_CONNECTIONS = 32, 4  # few, because requests in progress at the end use time but are not counted
WARM_UP_S = 1.0
IDLE_S, IDLE_TIMEOUT_S = 0.2, 10.0
ONE_THREAD = {"CONVOY_THREADS": "1"}

StageTimes = dict[str, float]
"""Microseconds of processor time per request, for each of STAGES."""


def measure(
    models: Path, loads: Sequence[Workload], bodies: Bodies, seconds: float, folder: Path
) -> dict[str, StageTimes]:
    """Returns stage times by load. Loads in which a request failed or no request was answered in time are left out."""
    settings = bench_settings(workers=1) | ONE_THREAD
    with run_convoy(models, folder / "plain.log", settings, (CONVOY, "serve")) as service:
        total_us = _measure_workloads(service, loads, bodies, seconds, lambda: {HTTP: cpu_s(service.pid) * 1e6})
    with run_convoy(
        models, folder / "clocked.log", settings, (PYTHON, "-m", "tests.bench.stage_timing.timed_service")
    ) as service:
        stages_us = _measure_workloads(service, loads, bodies, seconds, lambda: _read_timers(service.url))
    both = [load.name for load in loads if load.name in total_us and load.name in stages_us]
    return {name: with_remainder(total_us[name][HTTP], stages_us[name]) for name in both}


def with_remainder(total_us: float, stages_us: StageTimes) -> StageTimes:
    """Returns the timed stages, and the remainder of the total as HTTP."""
    inner = {stage: stages_us[stage] for stage in STAGES if stage != HTTP}
    return {HTTP: total_us - sum(inner.values())} | inner


def _measure_workloads(
    service: Service, loads: Sequence[Workload], bodies: Bodies, seconds: float, read: Callable[[], StageTimes]
) -> dict[str, StageTimes]:
    """Returns, by load, the increase of `read` during the load divided by the number of requests."""
    supported_workloads(service.url, loads, bodies)
    per_request = {}
    for load in loads:
        url, body = service.url + load.path, bodies.get(load.kind)
        connections = CONNECTIONS if body.images == 1 else BATCH_CONNECTIONS
        wrk(url, body, connections, WARM_UP_S)
        _wait_until_idle(service.pid)
        before = read()
        result = wrk(url, body, connections, seconds)
        after = read()
        if result.requests and not result.failed:
            per_request[load.name] = {stage: (after[stage] - before[stage]) / result.requests for stage in after}
    return per_request


def _wait_until_idle(pid: int) -> None:
    """Waits until the remaining warm-up requests use no more processor time."""
    used_s, end_s = -1.0, time.monotonic() + IDLE_TIMEOUT_S
    while (now_s := cpu_s(pid)) > used_s + 0.1 * IDLE_S and time.monotonic() < end_s:
        used_s = now_s
        time.sleep(IDLE_S)


def _read_timers(url: str) -> StageTimes:
    try:
        with urllib.request.urlopen(url + PATH, timeout=30) as reply:
            return {stage: ns / 1000 for stage, ns in json.load(reply).items()}
    except urllib.error.HTTPError as error:
        raise CannotMeasure(
            "The timers are not installed in the service's process; see tests/bench/stage_timing/timed_service.py."
        ) from error
