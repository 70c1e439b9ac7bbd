"""Faults in a running service: correct status code, one log line, no effect on other requests, and recovery."""

import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.reliability.process_resources import resource_usage, workers_of
from tests.support.images import encode, image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import brittle_graph, endless_graph, missing_class_graph, nan_graph
from tests.support.service_process import RunningService

SHAPE = (8, 8, 1)
WHITE = encode(np.full(SHAPE, 255, np.uint8))
TIMEOUT_MS = 3000
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of models. `linear` is valid; each of the others fails on a white pixel in a different way."""
    root = tmp_path_factory.mktemp("faults") / "models"
    write_version(root, "linear", 1)
    write_version(root, "raises", 1, graph=brittle_graph(SHAPE, 4))
    write_version(root, "blank", 1, graph=nan_graph(SHAPE, 4))
    write_version(root, "short", 1, graph=missing_class_graph(SHAPE, 4))
    write_version(root, "hangs", 1, graph=endless_graph(SHAPE, 4))
    return root


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[RunningService]:
    """Runs a service. The tests at the end of this module leave it hanging, so they must run last."""
    settings = {"request_timeout_ms": TIMEOUT_MS, "scan_interval_s": 0.2, "drain_timeout_s": 2, "body_timeout_s": 2}
    with RunningService(models, **settings) as running:
        yield running


def classify(service: RunningService, model: str, body: bytes = b"") -> httpx.Response:
    """Sends an image on a new connection, so that any worker may answer."""
    return httpx.post(f"{service.url}/api/v1/models/{model}/classify", content=body or image_bytes(), timeout=30)


def count(service: RunningService, event: str, **fields: object) -> int:
    return sum((fields | {"event": event}).items() <= line.items() for line in list(service.lines))


def times_of(service: RunningService, event: str) -> dict[int, list[datetime]]:
    """Returns the times at which each worker logged the event, by worker number."""
    times: dict[int, list[datetime]] = {}
    for line in list(service.lines):
        if line["event"] == event:
            times.setdefault(line.get("worker", 0), []).append(datetime.fromisoformat(line["time"]))
    return times


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("raises", "failed on a batch of 1"),
        ("blank", "output for the image is not finite"),
        ("short", "with shape (1, 3)"),
    ],
)
def test_a_failing_model_fails_only_the_affected_batch(service: RunningService, model: str, reason: str) -> None:
    before = count(service, "model failed")
    failed = classify(service, model, WHITE)
    assert failed.status_code == 500
    assert failed.json()["error"]["code"] == "model_failed"
    line = service.wait_for_line(event="model failed", request_id=failed.headers["x-request-id"])
    assert reason in line["reason"]
    assert classify(service, model).status_code == 200
    assert classify(service, "linear").status_code == 200
    assert count(service, "model failed") == before + 1


def test_models_that_vanish_are_reported_and_stay_loaded(service: RunningService, models: Path) -> None:
    moved = models.rename(models.with_name("elsewhere"))
    try:
        assert "is gone; the loaded models keep serving" in service.wait_for("models cannot be read")["reason"]
        time.sleep(0.5)  # several scans of the folder later
        assert classify(service, "linear").status_code == 200
        assert service.client.get("/health/ready").status_code == 200
    finally:
        moved.rename(models)
    service.wait_for("models can be read again")
    assert count(service, "models cannot be read") == 1


def test_clients_that_disconnect_during_a_body_leave_nothing_behind(service: RunningService) -> None:
    head = b"POST /api/v1/models/linear/classify HTTP/1.1\r\nHost: convoy\r\nContent-Length: 1000\r\n\r\n"
    before = resource_usage(service.process.pid).descriptors
    for number in range(100):
        with open_socket(service) as client:
            client.sendall(head + bytes(number))
            if number % 2:  # a reset instead of a regular close
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    service.wait_until(lambda: service.metric("convoy_requests_in_flight") == 1)  # the request for the metrics itself
    service.wait_until(lambda: resource_usage(service.process.pid).descriptors <= before + 1)
    service.wait_until(lambda: count(service, "request", status=499) == 100)
    assert service.metric("convoy_queue_images", model="linear") == 0
    assert classify(service, "linear").status_code == 200
    assert count(service, "unexpected error") == 0


def test_a_client_that_does_not_read_its_answers_delays_no_other(service: RunningService) -> None:
    body = image_bytes()
    head = f"POST /api/v1/models/linear/classify HTTP/1.1\r\nHost: convoy\r\nContent-Length: {len(body)}\r\n\r\n"
    before = len(service.lines)
    with open_socket(service) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        resident_bytes = resource_usage(service.process.pid).resident_bytes
        requests = (head.encode() + body) * 100_000
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # not a TimeoutError of the test
            client.sendall(requests)
        started_s = time.monotonic()
        assert classify(service, "linear").status_code == 200
        assert time.monotonic() - started_s < 15
        assert resource_usage(service.process.pid).resident_bytes - resident_bytes < 20e6
    service.wait_for_line(event="request", status=400, error="bad_http")
    assert not [line for line in service.lines[before:] if line["level"] == "error"]


def test_a_model_that_hangs_fails_readiness_until_another_version_takes_its_place(
    service: RunningService, models: Path
) -> None:
    for _ in range(3):  # after these runs the model is known to be fast, so the event loop's thread runs it
        assert classify(service, "hangs").status_code == 200
    started_s = time.monotonic()
    assert classify(service, "hangs", WHITE).json()["error"]["code"] == "deadline_exceeded"
    assert time.monotonic() - started_s < 10 + TIMEOUT_MS / 1000
    assert service.wait_for("model hangs")["model"] == "hangs"
    ready = service.client.get("/health/ready")
    assert ready.status_code == 503
    assert f"running one batch for more than {TIMEOUT_MS / 1000:g} s" in ready.json()["error"]["reasons"]["hangs"]
    rejected = classify(service, "hangs")
    assert (rejected.status_code, rejected.json()["error"]["code"]) == (429, "too_late_to_start")
    assert classify(service, "linear").status_code == 200
    write_version(models, "hangs", 2)
    service.wait_ready()
    assert classify(service, "hangs", WHITE).json()["version"] == "2"
    service.wait_for("model no longer hangs")
    assert count(service, "model hangs") == 1


@contextmanager
def open_socket(service: RunningService) -> Iterator[socket.socket]:
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as client:
        yield client


@contextmanager
def resource_limit(pids: list[int], resource_id: int, limit: int) -> Iterator[None]:
    """Limits a resource of the processes within the context."""
    before = {pid: resource.prlimit(pid, resource_id) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource_id, (limit, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            if Path(f"/proc/{pid}").exists():
                resource.prlimit(pid, resource_id, limits)


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[RunningService]:
    """Runs a service with two workers."""
    write_version(tmp_path / "models", "linear", 1)
    state = tmp_path / "state.json"
    with RunningService(tmp_path / "models", workers=2, repository_changes="true", state=state) as running:
        yield running


@pytest.mark.slow
def test_a_full_disk_is_reported_and_stops_neither_answers_nor_the_replacing_of_workers(
    two_workers: RunningService,
) -> None:
    workers = workers_of(two_workers.process.pid)
    with resource_limit([two_workers.process.pid, *workers], resource.RLIMIT_FSIZE, 0):
        assert "File too large" in two_workers.wait_for("worker status cannot be written")["reason"]
        assert classify(two_workers, "linear").status_code == 200
        assert httpx.get(f"{two_workers.url}/metrics", timeout=30).status_code == 200
        refused = httpx.post(f"{two_workers.url}/v2/repository/models/linear/unload", timeout=30)
        assert refused.status_code == 500
        assert "cannot be written: File too large" in refused.json()["error"]
        two_workers.wait_for_line(event="request", request_id=refused.headers["x-request-id"], error="bad_state")
        os.kill(workers[0], signal.SIGKILL)
        two_workers.wait_until(lambda: count(two_workers, "worker is started") == 3)
        assert classify(two_workers, "linear").status_code in (200, 503)
    (new,) = set(workers_of(two_workers.process.pid)) - set(workers)
    resource.prlimit(new, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    two_workers.wait_for("worker status is written again")
    two_workers.wait_until(lambda: httpx.get(f"{two_workers.url}/health/ready").status_code == 200)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_lack_of_descriptors_is_logged_and_open_connections_are_served(tmp_path: Path, workers: int) -> None:
    write_version(tmp_path / "models", "linear", 1)
    with RunningService(tmp_path / "models", workers=workers) as service, ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=service.url, timeout=30)) for _ in range(8)]
        assert {client.get("/health/live").status_code for client in clients} == {200}
        serving = workers_of(service.process.pid)
        max_descriptors = max(resource_usage(pid).descriptors for pid in serving)
        with resource_limit(serving, resource.RLIMIT_NOFILE, max_descriptors + 4):
            with ExitStack() as sockets:
                for _ in range(20):
                    sockets.enter_context(open_socket(service))
                service.wait_until(lambda: count(service, "connections cannot be accepted") >= 3 * workers)
                for client in clients:
                    reply = client.post("/api/v1/models/linear/classify", content=image_bytes())
                    assert reply.status_code == 200
            service.wait_until(lambda: max(resource_usage(pid).descriptors for pid in serving) <= max_descriptors + 2)
            assert classify(service, "linear").status_code == 200
        for times in times_of(service, "connections cannot be accepted").values():
            assert all(b - a > timedelta(seconds=0.9) for a, b in pairwise(times)), times
        assert count(service, "unexpected error") == 0


@pytest.mark.slow
def test_missing_memory_is_an_error_of_its_own_request(tmp_path: Path) -> None:
    write_version(tmp_path / "models", "linear", 1)
    large = encode(np.zeros((4800, 4800, 3), np.uint8))  # 69 MB as pixels
    with RunningService(tmp_path / "models", decode_threads=1) as service:
        assert classify(service, "linear", large).status_code == 200
        mapped = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        with resource_limit([service.process.pid], resource.RLIMIT_AS, mapped + (30 << 20)):
            refused = classify(service, "linear", large)
            assert refused.status_code == 503, refused.text
            assert refused.json()["error"]["code"] == "out_of_memory"
            assert refused.headers["retry-after"] == "1"
            assert classify(service, "linear").status_code == 200
        assert classify(service, "linear", large).status_code == 200
        assert count(service, "out of memory", request_id=refused.headers["x-request-id"]) == 1
        assert count(service, "out of memory") == 1
        assert count(service, "unexpected error") == 0


@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock jumps by an hour, alternately forward and backward, at every read."""
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "true, jumps = time.time, itertools.cycle([3600, -3600])\n"
        "time.time = lambda: true() + next(jumps)\n"
        "time.time_ns = lambda: int(time.time() * 1e9)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    write_version(tmp_path / "models", "linear", 1)
    write_version(tmp_path / "models", "hangs", 1, graph=endless_graph(SHAPE, 4))
    settings = {"request_timeout_ms": TIMEOUT_MS, "scan_interval_s": 0.2, "drain_timeout_s": 2}
    with RunningService(tmp_path / "models", **settings) as service:
        with httpx.Client(base_url=service.url, timeout=30) as client:
            for _ in range(50):  # on one connection, because the keep-alive timeout is tested as well
                assert client.post("/api/v1/models/linear/classify", content=image_bytes()).status_code == 200
        started_s = time.monotonic()
        late = classify(service, "hangs", WHITE)
        assert TIMEOUT_MS / 1000 <= time.monotonic() - started_s < 15
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "deadline_exceeded"
        assert service.wait_for("model hangs")["model"] == "hangs"
        write_version(tmp_path / "models", "hangs", 2)
        service.wait_ready()
        (times,) = times_of(service, "request").values()
        assert min(b - a for a, b in pairwise(times)) < -HOUR, "the clock did jump"
        assert max(b - a for a, b in pairwise(times)) > HOUR
