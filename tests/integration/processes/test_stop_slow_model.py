"""Stopping a service with a slow model: accepted requests are answered; requests that cannot be answered get 503 and
are counted."""

import http.client
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest

from tests.support.haproxy import haproxy, needs_haproxy
from tests.support.images import encode, image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import endless_graph, slow_graph
from tests.support.service_process import RunningService

SHAPE = (8, 8, 1)
WHITE = encode(np.full(SHAPE, 255, np.uint8))
REQUESTS = 8
ROUTE = "/api/v1/models/{model}/classify"


def send(url: str, model: str, body: bytes) -> http.client.HTTPConnection:
    """Sends a request without reading the response."""
    parsed = urlparse(url)
    connection = http.client.HTTPConnection(str(parsed.hostname), parsed.port, timeout=60)
    connection.request("POST", ROUTE.format(model=model), body=body)
    return connection


def read(connection: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def accepted_requests(service: RunningService) -> float:
    """Returns the number of classification requests that are answered or in progress, without this request itself."""
    answered = service.metric("convoy_requests_total", route=ROUTE)
    return answered + service.metric("convoy_requests_in_flight") - 1


def lost_requests(service: RunningService) -> int:
    """Returns the number of lost requests in the workers' last log lines."""
    return sum(line["requests"] for line in service.lines if line["event"] == "accepted requests were lost")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("proxy", ["alone", pytest.param("haproxy", marks=needs_haproxy)])
def test_every_accepted_request_is_answered(tmp_path: Path, workers: int, proxy: str) -> None:
    models = tmp_path / "models"
    write_version(models, "slow", 1, graph=slow_graph(SHAPE, 4, rounds=100))
    with RunningService(models, workers=workers, max_batch_size=1) as service, ExitStack() as proxies:
        url = service.url
        if proxy == "haproxy":
            balancer = proxies.enter_context(haproxy(tmp_path, slots=1, mode="http"))
            balancer.add(service.url)
            url = balancer.url
        connections = [send(url, "slow", image_bytes(seed=seed)) for seed in range(REQUESTS)]
        service.wait_until(lambda: accepted_requests(service) >= REQUESTS)
        service.terminate()
        answers = [read(connection) for connection in connections]
        assert service.exit_code() == 0
    assert [status for status, _ in answers] == [200] * REQUESTS
    assert {answer["model"] for _, answer in answers} == {"slow"}
    assert lost_requests(service) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_that_a_hanging_model_cannot_answer_gets_503_and_the_exit_code_is_reported(
    tmp_path: Path, workers: int
) -> None:
    write_version(tmp_path, "hung", 1, graph=endless_graph(SHAPE, 4))
    with RunningService(tmp_path, workers=workers, drain_timeout_s=2) as service:
        connections = [send(service.url, "hung", WHITE) for _ in range(REQUESTS)]
        service.wait_until(lambda: accepted_requests(service) >= REQUESTS)
        service.terminate()
        answers = [read(connection) for connection in connections]
        assert service.exit_code() == 1
    assert [(status, answer["error"]["code"]) for status, answer in answers] == [(503, "draining")] * REQUESTS
    logged = [line for line in service.lines if line["event"] == "request" and line["path"].endswith("/classify")]
    assert [(line["status"], line["error"]) for line in logged] == [(503, "draining")] * REQUESTS
    assert lost_requests(service) == REQUESTS
    assert "no json" not in {line["event"] for line in service.lines}


def test_a_request_whose_body_never_arrives_receives_503(zoo: Path) -> None:
    with RunningService(zoo, drain_timeout_s=1) as service:
        parsed = urlparse(service.url)
        connection = http.client.HTTPConnection(str(parsed.hostname), parsed.port, timeout=60)
        connection.putrequest("POST", ROUTE.format(model="linear"))
        connection.putheader("Content-Length", "100")
        connection.endheaders()
        service.wait_until(lambda: accepted_requests(service) >= 1)
        service.terminate()
        status, answer = read(connection)
        assert (status, answer["error"]["code"]) == (503, "draining")
        assert service.exit_code() == 1
    assert lost_requests(service) == 1
