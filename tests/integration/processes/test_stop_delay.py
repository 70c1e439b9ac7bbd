"""Without a preStop hook, a stop delay keeps a service running until a load balancer's health check has failed."""

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.haproxy import haproxy, needs_haproxy
from tests.support.model_versions import write_version
from tests.support.raw_load import RawLoad
from tests.support.service_process import RunningService

CHECK = {"defaults": "option httpchk GET /health/ready", "server": "check inter 200ms fall 3"}
"""HAProxy needs up to 0.8 s to detect that a service is not ready."""
STOP_DELAY_S = 4.0
REQUESTS_BEFORE, REQUESTS_AFTER = 300, 600
TIMEOUT_S = 120.0


@needs_haproxy
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_behind_haproxy_loses_nothing(tmp_path: Path, workers: int) -> None:
    write_version(tmp_path / "models", "linear", 1)
    settings = {"workers": workers, "stop_delay_s": STOP_DELAY_S, "log_requests_per_s": 1}
    with ExitStack() as stack, haproxy(tmp_path, slots=2, **CHECK) as balancer:
        services = [stack.enter_context(RunningService(tmp_path / "models", **settings)) for _ in range(2)]
        for service in services:
            balancer.add(service.url)
        load = RawLoad(balancer.port)
        load.start()
        _wait_until(load, REQUESTS_BEFORE)
        started_s = time.monotonic()
        services[0].terminate()
        assert services[0].exit_code() == 0
        assert time.monotonic() - started_s >= STOP_DELAY_S
        _wait_until(load, load.answered + REQUESTS_AFTER)
        load.stopping = True
        load.join(30)
    assert load.lost == []


def _wait_until(load: RawLoad, answered: int) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while load.answered < answered and not load.lost and time.monotonic() < end_s:
        time.sleep(0.05)
    assert load.answered >= answered, load.lost


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_that_is_not_ready_keeps_serving_until_a_second_signal(tmp_path: Path, workers: int) -> None:
    write_version(tmp_path / "models", "linear", 1)
    with RunningService(tmp_path / "models", workers=workers, stop_delay_s=600) as service:
        service.terminate()
        service.wait_until(lambda: service.client.get("/health/ready").status_code == 503)
        assert service.client.get("/health/ready").json()["error"]["code"] == "draining"
        assert service.client.get("/v2/health/ready").status_code == 503
        assert httpx.get(f"{service.url}/health/live").status_code == 200, "a new connection"
        threading.Timer(0.1, service.terminate).start()
        assert service.exit_code() == 0
