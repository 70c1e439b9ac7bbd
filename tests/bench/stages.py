"""Processor time of a request by stage: one worker with one thread a run, once as it ships and once with clocks in it.

As it ships gives the whole (the kernel's account of the process); the clocks give the stages. HTTP is what is left.
"""

import json
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.bodies import Bodies
from tests.bench.clocks import HTTP, PATH, STAGES
from tests.bench.convoy import CONVOY, PYTHON, Service, bench_settings, convoy
from tests.bench.errors import CannotMeasure
from tests.bench.generators import wrk
from tests.bench.loads import Load, offered
from tests.bench.processes import cpu_s

CONNECTIONS = 32
WARM_UP_S = 1.0
ONE_THREAD = {"CONVOY_THREADS": "1"}

StageTimes = dict[str, float]
"""Microseconds of processor time of one request, by stage; all of STAGES."""


def measure(models: Path, loads: Sequence[Load], bodies: Bodies, seconds: float, folder: Path) -> dict[str, StageTimes]:
    """By name of the load. Raises CannotMeasure when a request failed."""
    settings = bench_settings(workers=1) | ONE_THREAD
    with convoy(models, folder / "plain.log", settings, (CONVOY, "serve")) as service:
        whole_us = _each(service, loads, bodies, seconds, lambda: {HTTP: cpu_s(service.pid) * 1e6})
    with convoy(models, folder / "clocked.log", settings, (PYTHON, "-m", "tests.bench.clocked_convoy")) as service:
        stages_us = _each(service, loads, bodies, seconds, lambda: _read_clocks(service.url))
    return {load.name: with_remainder(whole_us[load.name][HTTP], stages_us[load.name]) for load in loads}


def with_remainder(whole_us: float, stages_us: StageTimes) -> StageTimes:
    """The stages as clocked, and as HTTP all of the whole that is none of them."""
    inner = {stage: stages_us[stage] for stage in STAGES if stage != HTTP}
    return {HTTP: whole_us - sum(inner.values())} | inner


def _each(
    service: Service, loads: Sequence[Load], bodies: Bodies, seconds: float, read: Callable[[], StageTimes]
) -> dict[str, StageTimes]:
    """What `read` gained over a load, divided by its requests, by name of the load."""
    offered(service.url, loads, bodies)
    gained = {}
    for load in loads:
        url, body = service.url + load.path, bodies.get(load.kind)
        wrk(url, body, CONNECTIONS, WARM_UP_S)
        before = read()
        fired = wrk(url, body, CONNECTIONS, seconds)
        after = read()
        if fired.failed or not fired.requests:
            raise CannotMeasure(f"{fired.failed} requests of '{load.name}' failed while its stages were measured.")
        gained[load.name] = {stage: (after[stage] - before[stage]) / fired.requests for stage in after}
    return gained


def _read_clocks(url: str) -> StageTimes:
    try:
        with urllib.request.urlopen(url + PATH, timeout=30) as reply:
            return {stage: ns / 1000 for stage, ns in json.load(reply).items()}
    except urllib.error.HTTPError as error:
        raise CannotMeasure(
            "The clocks are not inside the service's process; see tests/bench/clocked_convoy.py."
        ) from error
