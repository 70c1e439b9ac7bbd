"""A model whose run never returns fails liveness; with several workers, only the affected worker is replaced."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.images import encode, image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import endless_graph
from tests.support.service_process import RunningService

SHAPE = (8, 8, 1)
SETTINGS = {"request_timeout_ms": 1000, "max_run_timeouts": 2, "drain_timeout_s": 2}


def hang(service: RunningService) -> None:
    white = encode(np.full(SHAPE, 255, np.uint8))
    reply = httpx.post(f"{service.url}/api/v1/models/hangs/classify", content=white, timeout=30)
    assert reply.json()["error"]["code"] == "deadline_exceeded"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_version(tmp_path / "models", "hangs", graph=endless_graph(SHAPE, 4))
    write_version(tmp_path / "models", "linear")
    return tmp_path / "models"


def test_liveness_fails_when_a_run_does_not_return(models: Path) -> None:
    with RunningService(models, **SETTINGS) as service:
        hang(service)
        assert service.client.get("/health/live").status_code == 200
        service.wait_until(lambda: service.client.get("/health/live").status_code == 503)
        own, v2 = service.client.get("/health/live"), service.client.get("/v2/health/live")
        assert own.json()["error"]["code"] == v2.json()["code"] == "model_hung"
        assert "Model 'hangs': Version 1 has been running one batch" in own.json()["error"]["message"]
        assert v2.status_code == 503
        assert httpx.post(f"{service.url}/api/v1/models/linear/classify", content=image_bytes()).status_code == 200


def test_of_several_workers_only_the_one_that_hangs_is_replaced(models: Path) -> None:
    with RunningService(models, workers=2, **SETTINGS) as service:
        started = {line["worker"]: line["pid"] for line in list(service.lines) if line["event"] == "worker is started"}
        hang(service)
        line = service.wait_for("worker hangs")
        assert started[line["worker"]] == line["pid"]
        assert "hangs: Version 1" in line["reason"]
        assert httpx.get(f"{service.url}/health/live").status_code == 200
        died = service.wait_for("worker died")
        assert died["pid"] == line["pid"]
        assert service.wait_for("worker is started")["worker"] == line["worker"]
        service.wait_ready()
        assert [one["pid"] for one in service.lines if one["event"] == "worker died"] == [line["pid"]]
