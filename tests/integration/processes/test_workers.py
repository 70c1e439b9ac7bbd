"""Several workers act as one: changes reach all of them, metrics are sums, and a dead worker is replaced."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.support.images import image_bytes, random_pixels
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService, is_alive

WORKERS = 2
CLASSIFY = "/api/v1/models/linear/classify"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_version(tmp_path / "models", "linear", 1, seed=1)
    write_version(tmp_path / "models", "other", 1)
    return tmp_path / "models"


@pytest.fixture
def service(root: Path, tmp_path: Path) -> Iterator[RunningService]:
    with RunningService(
        root,
        workers=WORKERS,
        repository_changes="true",
        repository_timeout_s=8,
        scan_interval_s=0.2,
        state=tmp_path / "state.json",
    ) as running:
        yield running


def pids(service: RunningService) -> list[int]:
    return [line["pid"] for line in service.lines if line["event"] == "worker is started"]


def ask_each_on_a_new_connection(service: RunningService, path: str, count: int = 30) -> list[httpx.Response]:
    """Sends requests over enough new connections to reach both workers."""
    return [httpx.get(service.url + path, timeout=30) for _ in range(count)]


def classify(service: RunningService, **params: str) -> httpx.Response:
    return httpx.post(service.url + CLASSIFY, content=image_bytes(), params=params, timeout=30)


def ask_until_each_answered(service: RunningService) -> list[str]:
    """Returns the versions that answered concurrent requests. Sequential requests might always reach the same
    worker."""
    versions: list[str] = []

    def each_answered() -> bool:
        with ThreadPoolExecutor(8) as clients:
            versions.extend(clients.map(lambda _: classify(service).json()["version"], range(8)))
        return {line["worker"] for line in list(service.lines) if line.get("path") == CLASSIFY} == set(range(WORKERS))

    service.wait_until(each_answered)
    return versions


def test_load_unload_and_statistics_apply_to_all_workers(service: RunningService, root: Path) -> None:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        client.unload_model("other")
        replies = ask_each_on_a_new_connection(service, "/v2/models/other/ready")
        assert {reply.status_code for reply in replies} == {404}
        client.load_model("other")
        replies = ask_each_on_a_new_connection(service, "/v2/models/other/ready")
        assert {reply.status_code for reply in replies} == {200}
        write_version(root, "linear", 2, seed=2)
        client.load_model("linear")
        versions = ask_until_each_answered(service)
        assert set(versions) == {"2"}
        service.wait_until(lambda: inferences(client) == len(versions))
        infer_input = triton.InferInput("image", [2, 8, 8, 1], "UINT8")
        infer_input.set_data_from_numpy(np.stack([random_pixels(8, 8, seed=seed) for seed in range(2)]))
        client.infer("linear", [infer_input])
        service.wait_until(lambda: inferences(client) == len(versions) + 2)
    service.terminate()
    assert service.exit_code() == 0


def inferences(client: triton.InferenceServerClient) -> int:
    (statistics,) = client.get_inference_statistics("linear")["model_stats"]
    return statistics["inference_count"]  # type: ignore[no-any-return]


def test_a_killed_worker_is_replaced_and_no_total_decreases(service: RunningService) -> None:
    for _ in range(40):
        assert classify(service).status_code == 200
    service.wait_until(lambda: requests_counted(service) == 40)
    os.kill(pids(service)[0], signal.SIGKILL)
    service.wait_for("worker died")
    counts = [requests_counted(service) for _ in range(5)]
    service.wait_until(lambda: len(pids(service)) == WORKERS + 1)
    service.wait_until(lambda: httpx.get(service.url + "/health/ready").status_code == 200)
    counts += [requests_counted(service) for _ in range(20)]
    assert set(counts) == {40.0}
    assert classify(service).status_code == 200
    service.wait_until(lambda: requests_counted(service) == 41)
    service.terminate()
    assert service.exit_code() == 0


def test_workers_that_cannot_start_end_the_service_with_the_reason(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the workers import the application, not the supervisor."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['service.app'] = None\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with RunningService(root, wait_ready=False, workers=WORKERS) as service:
        assert service.exit_code() == 4
    assert "no json" not in {line["event"] for line in service.lines}
    reasons = {line["reason"] for line in service.lines if line["event"] == "worker failed"}
    assert len(reasons) == 1
    assert "service.app" in reasons.pop()
    assert service.lines[-1]["event"] == "worker cannot start; the service ends"
    assert service.lines[-1]["action"]


def test_sigterm_during_a_worker_replacement_exits_with_0(service: RunningService) -> None:
    os.kill(pids(service)[0], signal.SIGKILL)
    service.wait_until(lambda: len(pids(service)) == WORKERS + 1)
    service.terminate()  # the new worker is still importing, and handles no signals yet
    assert service.exit_code() == 0


def test_stopping_one_worker_rejects_no_connection(service: RunningService) -> None:
    os.kill(pids(service)[0], signal.SIGTERM)
    service.wait_until(lambda: len(pids(service)) == WORKERS + 1)
    assert {reply.status_code for reply in ask_each_on_a_new_connection(service, "/health/live", 10)} == {200}


def requests_counted(service: RunningService) -> float:
    """Reads the metric on a new connection, so that any worker may answer."""
    with httpx.Client(base_url=service.url) as client:
        usual_client, service.client = service.client, client
        try:
            return service.metric("convoy_requests_total", route="/api/v1/models/{model}/classify", code="200")
        finally:
            service.client = usual_client


def test_a_worker_that_does_not_answer_fails_readiness_and_is_reported(service: RunningService) -> None:
    silent = pids(service)[1]
    os.kill(silent, signal.SIGSTOP)
    try:
        service.wait_until(lambda: "worker 1" in reasons(service))
        with (
            triton.InferenceServerClient(service.url.removeprefix("http://"), network_timeout=30) as client,
            pytest.raises(InferenceServerException, match="Not carried out within 8 s by worker 1"),
        ):
            client.unload_model("other")
    finally:
        os.kill(silent, signal.SIGCONT)
    service.wait_until(lambda: httpx.get(service.url + "/health/ready").status_code == 200)
    service.wait_until(
        lambda: {r.status_code for r in ask_each_on_a_new_connection(service, "/v2/models/other/ready")} == {404}
    )


def reasons(service: RunningService) -> dict[str, str]:
    try:
        body = httpx.get(service.url + "/health/ready", timeout=1).json()
    except httpx.TimeoutException:  # the stopped worker accepted the connection
        return {}
    return body.get("error", {}).get("reasons", {})  # type: ignore[no-any-return]


def test_the_state_file_can_be_edited_by_hand(service: RunningService, root: Path, tmp_path: Path) -> None:
    write_version(root, "linear", 2, seed=2)
    service.wait_until(lambda: classify(service).json()["version"] == "2")
    state = {"generation": 7, "models": {"linear": {"versions": {"specific": [1]}, "labels": {"canary": 2}}}}
    replace(tmp_path / "state.json", json.dumps(state))
    model = "/api/v1/models/linear"
    service.wait_until(
        lambda: all(
            reply.json()["version_labels"] == {"canary": "2"}
            for reply in [service.client.get(model), *ask_each_on_a_new_connection(service, model)]
        )
    )
    service.wait_until(lambda: {classify(service).json()["version"] for _ in range(10)} == {"1"})
    assert classify(service, version="canary").json()["version"] == "2"
    body = {"instances": random_pixels(8, 8)[np.newaxis].tolist()}
    v1 = httpx.post(f"{service.url}/v1/models/linear/labels/canary:predict", json=body)
    assert len(v1.json()["predictions"][0]) == 4
    assert httpx.get(f"{service.url}/v2/models/linear/versions/canary/ready").status_code == 200
    assert service.client.get("/api/v1/models/linear").json()["version_labels"] == {"canary": "2"}


def replace(file: Path, text: str) -> None:
    """Replaces a file atomically."""
    part = file.with_suffix(".part")
    part.write_text(text)
    part.replace(file)


def test_a_bad_state_file_is_reported_and_changes_nothing(service: RunningService, tmp_path: Path) -> None:
    replace(tmp_path / "state.json", '{"models": {"linear": {"versions": "newest"}}}')
    assert "models.linear.versions" in service.wait_for("state file is invalid")["reason"]
    assert classify(service).status_code == 200
    assert service.client.get("/health/ready").status_code == 200
    refused = service.client.post("/v2/repository/models/linear/load")
    assert refused.status_code == 500
    assert "is not a valid state" in refused.json()["error"]


def test_the_desired_state_survives_a_restart(root: Path, tmp_path: Path) -> None:
    settings = {"repository_changes": "true", "state": tmp_path / "state.json"}
    with RunningService(root, **settings) as service:
        assert service.client.post("/v2/repository/models/other/unload").status_code == 200
    with RunningService(root, **settings) as service:
        assert service.client.get("/v2/models/other/ready").status_code == 404
        assert service.client.get("/v2/models/linear/ready").status_code == 200


def test_no_worker_outlives_a_killed_supervisor(service: RunningService) -> None:
    workers = pids(service)
    service.process.kill()
    service.wait_until(lambda: not any(map(is_alive, workers)))


@pytest.mark.slow
def test_versions_change_under_load_without_a_failed_request(service: RunningService, root: Path) -> None:
    stop = threading.Event()
    codes: list[int] = []
    versions: set[str] = set()

    def load() -> None:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            while not stop.is_set():
                reply = client.post(CLASSIFY, content=image_bytes())
                codes.append(reply.status_code)
                versions.add(reply.json().get("version", reply.text))

    def wait_for_version(version: str) -> None:
        service.wait_until(lambda: {classify(service).json()["version"] for _ in range(10)} == {version})

    clients = [threading.Thread(target=load) for _ in range(8)]
    for client in clients:
        client.start()
    try:
        for _ in range(2):
            write_version(root, "linear", 2, seed=2)  # published
            wait_for_version("2")
            staged_version = write_version(root.parent / "made", "linear", 3, seed=3)
            (staged_version / "model.onnx").write_bytes((staged_version / "model.onnx").read_bytes()[:100])
            damaged_version = staged_version.rename(root / "linear" / "3")
            service.wait_for("version is broken")
            shutil.rmtree(damaged_version)
            shutil.rmtree(root / "linear" / "2")  # deleting a version rolls back to the previous one
            wait_for_version("1")
        time.sleep(0.5)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert set(codes) == {200}
    assert versions == {"1", "2"}
    assert len(codes) > 500


def test_simultaneous_clients_are_shared_among_workers(service: RunningService) -> None:
    ask_until_each_answered(service)
    address = httpx.URL(service.url)
    clients = [socket.create_connection((address.host, address.port)) for _ in range(32)]
    for client in clients:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: convoy\r\nX-Request-Id: share\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"

    def answers() -> list[int]:
        return [line["worker"] for line in list(service.lines) if line.get("request_id") == "share"]

    service.wait_until(lambda: len(answers()) == 32)
    for client in clients:
        client.close()
    assert set(answers()) == set(range(WORKERS))


def test_a_worker_with_a_blocked_event_loop_is_reported_and_replaced(root: Path) -> None:
    with RunningService(root, workers=WORKERS, worker_timeout_s=8) as service:
        stopped = pids(service)[1]
        os.kill(stopped, signal.SIGSTOP)
        assert service.wait_for("worker does not respond")["pid"] == stopped
        service.wait_until(
            lambda: httpx.get(f"{service.url}/metrics").text.count("convoy_unresponsive_workers 1.0") == 1
        )
        hang = service.wait_for("worker hangs")
        assert (hang["pid"], hang["reason"]) == (stopped, "Its event loop has been blocked for 8 s.")
        assert "because it hung" in service.wait_for("worker died")["reason"]
        assert service.wait_for("worker is started")["pid"] != stopped
        service.wait_until(lambda: httpx.get(f"{service.url}/health/ready").status_code == 200)
        assert service.metric("convoy_unresponsive_workers") == 0
        assert service.metric("convoy_worker_restarts_total") == 1
