"""Shutdown under load: SIGTERM loses no requests, readiness fails immediately, and the exit code is 0 in time."""

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import httpx
import numpy as np
import pytest

from service.model_store.checksums import sha256_of
from service.model_store.manifest import ExtraGraph, read_manifest, write_manifest
from tests.support.images import encode, image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import endless_graph
from tests.support.service_process import RunningService

SHAPE = (8, 8, 1)
CLASSIFY = "/api/v1/models/linear/classify"
DRAIN_TIMEOUT_S = 4


class Client(threading.Thread):
    """Sends images over keep-alive or new connections until they are rejected, and counts lost requests."""

    def __init__(self, url: str, path: str, keep_alive: bool) -> None:
        super().__init__(daemon=True)
        parsed = urlparse(url)
        assert parsed.hostname
        self._connection = http.client.HTTPConnection(parsed.hostname, parsed.port, timeout=30)
        self._path = path
        self._body = image_bytes()
        self._headers = {} if keep_alive else {"Connection": "close"}
        self.answered = 0
        self.lost: list[str] = []
        self.codes: set[int] = set()

    def run(self) -> None:
        while True:
            try:
                self._connection.connect()
            except ConnectionRefusedError:
                return
            try:
                self._talk()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
            finally:
                self._connection.close()

    def _talk(self) -> None:
        """Uses one connection until a response closes it."""
        will_close = False
        while not will_close:
            self._connection.request("POST", self._path, body=self._body, headers=self._headers)
            reply = self._connection.getresponse()
            will_close = reply.will_close
            reply.read()
            self.answered += 1
            self.codes.add(reply.status)


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_nothing(zoo: Path, workers: int) -> None:
    with RunningService(zoo, workers=workers) as service:
        clients = [Client(service.url, CLASSIFY, keep_alive=i % 2 == 0) for i in range(16)]
        for client in clients:
            client.start()
        time.sleep(1)
        service.terminate()
        for client in clients:
            client.join(20)
        assert service.exit_code() == 0
    assert [client.lost for client in clients] == [[]] * 16
    assert sum(client.answered for client in clients) > 100
    assert {code for client in clients for code in client.codes} == {200}


def test_queued_requests_are_answered_and_readiness_fails_at_once(zoo: Path) -> None:
    with RunningService(zoo, max_batch_size=1) as service:
        answers: list[int] = []
        path = "/api/v1/models/slow/classify"
        asking = [threading.Thread(target=lambda: answers.append(_post(service.url, path))) for _ in range(4)]
        probe = _connect(service.url)
        assert _get(probe, "/health/ready") == (200, "ready")
        for thread in asking:
            thread.start()
        service.wait_until(lambda: service.metric("convoy_queue_images", model="slow") >= 1)
        service.terminate()
        assert _get(probe, "/health/ready") == (503, "draining")
        probe.close()
        for thread in asking:
            thread.join(20)
        assert service.exit_code() == 0
    assert answers == [200] * 4


def test_idle_connections_are_closed_and_new_ones_rejected(zoo: Path) -> None:
    with RunningService(zoo) as service:
        idle = _connect(service.url)
        assert _get(idle, "/health/ready") == (200, "ready")
        service.terminate()
        assert idle.sock.recv(1) == b""  # closed by the service
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            _connect(service.url)
        assert service.exit_code() == 0


def test_a_request_that_is_still_being_sent_is_answered(zoo: Path) -> None:
    body = image_bytes()
    with RunningService(zoo) as service:
        connection = _connect(service.url)
        connection.putrequest("POST", CLASSIFY)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        connection.send(body[:20])
        time.sleep(0.2)
        service.terminate()
        time.sleep(0.6)
        connection.send(body[20:])
        assert connection.getresponse().status == 200
        connection.close()
        assert service.exit_code() == 0


@pytest.mark.parametrize(("path", "status"), [(CLASSIFY, 413), ("/nothing/here", 404)])
def test_a_client_that_reads_only_after_sending_receives_its_early_answer(zoo: Path, path: str, status: int) -> None:
    """urllib sends the whole body before it reads the response, and requests that the connection is closed."""
    chunk = bytes(200_000)

    def body() -> Iterator[bytes]:
        yield chunk
        service.wait_until(lambda: service.metric("convoy_requests_total", code=str(status)) == 1)
        service.terminate()
        service.wait_for("stopping")
        for _ in range(30):  # for longer than the stop takes without this client
            time.sleep(0.1)
            yield chunk

    with RunningService(zoo, max_body_bytes=1_000_000) as service:
        request = Request(service.url + path, body(), {"Content-Length": str(31 * len(chunk))})
        with pytest.raises(HTTPError) as answer:
            urlopen(request, timeout=30)
        assert answer.value.code == status
        answer.value.close()
        assert service.exit_code() == 0
    assert "error" not in {line["level"] for line in service.lines}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_endless_model_load_does_not_delay_the_exit(tmp_path: Path, workers: int) -> None:
    """The port stays closed until the first attempt to load every model has ended, and the service exits normally."""
    write_version(tmp_path, "linear", 1)
    write_version(tmp_path, "stuck", 1, graph=endless_graph(SHAPE, 4, "GreaterOrEqual", 0))
    with RunningService(tmp_path, wait_ready=False, workers=workers, drain_timeout_s=DRAIN_TIMEOUT_S) as service:
        for _ in range(workers):
            assert service.wait_for("version is loaded")["model"] == "linear"
        with pytest.raises(httpx.ConnectError):
            service.client.get("/health/live")
        _ends_well(service)
    aborted = [line for line in service.lines if line["event"] == "a version is still being loaded; it is aborted"]
    assert len(aborted) == workers


def test_a_model_load_during_traffic_does_not_delay_the_exit(tmp_path: Path) -> None:
    write_version(tmp_path, "linear", 1)
    with RunningService(tmp_path, scan_interval_s=0.1, drain_timeout_s=DRAIN_TIMEOUT_S) as service:
        write_version(tmp_path, "linear", 2, graph=endless_graph(SHAPE, 4, "GreaterOrEqual", 0))
        service.wait_until(lambda: "loading" in _index_reasons(service))
        assert _post(service.url, CLASSIFY) == 200
        _ends_well(service)
    assert service.lines[-1]["event"] == "a version is still being loaded; it is aborted"


def test_an_endless_explanation_does_not_delay_the_exit(tmp_path: Path) -> None:
    folder = write_version(tmp_path, "linear", 1)
    endless = folder / "features.onnx"
    endless.write_bytes(endless_graph(SHAPE, 4, "GreaterOrEqual", 0).SerializeToString())
    extra = ExtraGraph(file=endless.name, sha256=sha256_of(endless))
    write_manifest(read_manifest(folder).model_copy(update={"extra_graphs": {"features": extra}}), folder)
    with RunningService(tmp_path, request_timeout_ms=1000, drain_timeout_s=DRAIN_TIMEOUT_S) as service:
        assert _post(service.url, "/api/v1/models/linear/explain?method=features") == 504
        _ends_well(service)
    assert service.lines[-1]["event"] == "an explanation is still running; it is aborted"


@pytest.mark.parametrize("workers", [1, 2])
def test_more_sigints_answer_with_an_error_and_log_no_traceback(tmp_path: Path, workers: int) -> None:
    """The signal is sent to the whole process group, as with Ctrl-C in a terminal."""
    write_version(tmp_path, "hung", 1, graph=endless_graph(SHAPE, 4, "Equal", 255.0))
    with RunningService(tmp_path, workers=workers, start_new_session=True) as service:
        answers: list[httpx.Response] = []
        white = encode(np.full(SHAPE, 255, np.uint8))
        asking = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{service.url}/api/v1/models/hung/classify", content=white, timeout=None)
            )
        )
        asking.start()
        service.wait_until(lambda: service.metric("convoy_running_batches", model="hung") == 1)
        os.killpg(service.process.pid, signal.SIGINT)
        for _ in range(workers):
            service.wait_for("stopping")
        os.killpg(service.process.pid, signal.SIGINT)
        asking.join(20)
        while service.process.poll() is None:
            os.killpg(service.process.pid, signal.SIGINT)
            time.sleep(0.01)
        assert service.exit_code() == 1
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [(503, "draining")]
    assert {"no json", "unexpected error"}.isdisjoint(line["event"] for line in service.lines)
    assert "Traceback" not in json.dumps(service.lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_while_the_service_starts_logs_no_traceback(zoo: Path, workers: int) -> None:
    with RunningService(zoo, workers=workers, wait_ready=False, start_new_session=True) as service:
        if workers > 1:
            service.wait_for("worker is started")
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.exit_code() == (130 if workers == 1 else 0)
    assert "no json" not in [line["event"] for line in service.lines]
    assert "Traceback" not in json.dumps(service.lines)


def _index_reasons(service: RunningService) -> set[str]:
    """Returns the reasons why versions on disk are not served."""
    return {entry["reason"] for entry in service.client.post("/v2/repository/index").json()}


def _ends_well(service: RunningService) -> None:
    """Checks that the service exits with 0 and leaves no files behind."""
    folders = _folders_of(service.process.pid)
    service.terminate()
    assert service.exit_code() == 0
    assert not [folder for folder in folders if folder.exists()]


def _folders_of(pid: int) -> set[Path]:
    """Returns the folders of the workers' shared files that are mapped into the process."""
    maps = Path(f"/proc/{pid}/maps")
    paths = maps.read_text().split() if maps.exists() else []
    return {Path(path).parent for path in paths if "/convoy-" in path and path.endswith("/connections")}


def _connect(url: str) -> http.client.HTTPConnection:
    parsed = urlparse(url)
    assert parsed.hostname
    connection = http.client.HTTPConnection(parsed.hostname, parsed.port, timeout=10)
    connection.connect()
    return connection


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    """Returns the status, and the status word or error code in the body."""
    connection.request("GET", path)
    reply = connection.getresponse()
    body = json.loads(reply.read())
    return reply.status, body["error"]["code"] if "error" in body else body["status"]


def _post(url: str, path: str) -> int:
    connection = _connect(url)
    connection.request("POST", path, body=image_bytes())
    status = connection.getresponse().status
    connection.close()
    return status
