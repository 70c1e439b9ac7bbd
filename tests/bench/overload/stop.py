"""Sends SIGTERM under full load: the service must answer every request that it has accepted."""

import contextlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from tests.bench import convoy_process
from tests.bench.load_generators import retrying_clients
from tests.bench.load_generators.closed_loop import require_tool
from tests.bench.load_generators.retrying_clients import REJECTED, Load, RequestRecord
from tests.bench.overload.excess import CAPACITY_TIMEOUT_S, capacity, client_count, service_settings
from tests.bench.overload.scenarios import Progress, Scenario
from tests.support.haproxy import haproxy_before

TIMEOUTS_S = (2.0, 30.0)
WORKERS = (1, 2)
LOAD_S = 6.0
"""Seconds of load before the signal."""
EXIT_MARGIN_S = 15.0


class Stop(NamedTuple):
    """One stop, with the results of the requests that ended after the signal."""

    timeout_s: float
    workers: int
    is_behind_haproxy: bool
    answered: int
    rejected: int
    """Requests rejected by Convoy with 429 or with 503 and a JSON body, or by HAProxy with 503 because Convoy no longer
    accepts connections."""
    late: int
    """Responses with status 504: accepted but not finished in time, because the machine slowed down after the request
    was accepted."""
    lost: int
    """Requests without a response, and responses with status 502 or any other status."""
    exit_code: int | None
    stop_s: float


def measure(scenario: Scenario, work: Path, progress: Progress) -> list[Stop]:
    """Stops a service of each configuration once. Raises CannotMeasure."""
    require_tool("haproxy")
    with convoy_process.run_convoy(
        scenario.models, work / "capacity.log", service_settings(1, CAPACITY_TIMEOUT_S)
    ) as service:
        capacity_per_s = capacity(scenario, service.url, LOAD_S)
    stops = []
    for timeout_s in TIMEOUTS_S:
        for workers in WORKERS:
            for is_behind_haproxy in (False, True):
                stops.append(_stop(scenario, timeout_s, workers, is_behind_haproxy, capacity_per_s, work))
                progress(f"  {stops[-1]}")
    return stops


def _stop(
    scenario: Scenario, timeout_s: float, workers: int, is_behind_haproxy: bool, capacity_per_s: float, work: Path
) -> Stop:
    settings = service_settings(workers, timeout_s)
    clients = client_count(capacity_per_s, timeout_s, 2)
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(convoy_process.run_convoy(scenario.models, work / "stop.log", settings))
        url = (
            stack.enter_context(haproxy_before(service.url, Path(mkdtemp(dir=work))))
            if is_behind_haproxy
            else service.url
        )
        load_s = LOAD_S + timeout_s + EXIT_MARGIN_S
        load = retrying_clients.start([Load(url + scenario.workload.path, scenario.body, clients, load_s)])
        time.sleep(LOAD_S)
        signal_s = time.monotonic()
        service.process.terminate()
        exit_code = _exit_code(service.process, timeout_s + EXIT_MARGIN_S)
        stop_s = time.monotonic() - signal_s
        run = load.result()
    after = [one for one in run.records[0] if run.epoch_s + one.start_s + one.latency_s >= signal_s]
    return Stop(timeout_s, workers, is_behind_haproxy, *count(after), exit_code, stop_s)


def count(records: Sequence[RequestRecord]) -> tuple[int, int, int, int]:
    """Returns the numbers of answered, rejected, late and lost requests."""
    answered = sum(one.status == 200 for one in records)
    rejected = sum(one.status in REJECTED for one in records)
    late = sum(one.status == 504 for one in records)
    return answered, rejected, late, len(records) - answered - rejected - late


def _exit_code(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
