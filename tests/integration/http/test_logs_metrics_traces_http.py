"""Observability of a running service: traces at a collector, a sampled log, counters by label."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.observability.logs import MAX_TEXT_LENGTH
from tests.integration.http.raw_connection import RawConnection
from tests.support.images import image_bytes
from tests.support.service_process import RunningService

CLASSIFY = "/api/v1/models/linear/classify"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LOG_LINES_PER_S = 5


class Collector(ThreadingHTTPServer):
    """A collector that receives OTLP over HTTP and keeps the spans."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _CollectorHandler)
        self.spans: list[object] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        import gzip

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        assert self.path == "/v1/traces"
        self.server.spans += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running
        running.shutdown()


def test_a_stop_hands_over_the_spans_of_every_request(
    zoo: Path, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import service.app\nservice.app.SPAN_EXPORT_S = 20.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with RunningService(zoo, otlp_endpoint=collector.url) as service:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "traced"}
        assert service.client.post(CLASSIFY, content=image_bytes(), headers=headers).status_code == 200
        assert service.wait_for_line(request_id="traced")["trace_id"] == TRACE
        service.client.post("/api/v1/models/nobody/classify", content=b"", headers={"x-request-id": "lost"})
        service.terminate()
        assert service.exit_code() == 0
    trace_spans = [span for span in collector.spans if span.trace_id.hex() == TRACE]  # type: ignore[attr-defined]
    spans_by_name = {span.name: span for span in trace_spans}
    route = "POST /api/v1/models/{model}/classify"
    assert spans_by_name.keys() == {route, "decode", "queue", "compute"}
    assert spans_by_name[route].parent_span_id.hex() == PARENT
    assert {span.parent_span_id for name, span in spans_by_name.items() if name != route} == {
        spans_by_name[route].span_id
    }
    attributes = {attribute.key: attribute.value for attribute in spans_by_name[route].attributes}
    assert attributes["convoy.model"].string_value == "linear"
    assert attributes["http.response.status_code"].int_value == 200
    request_ids = [a.value.string_value for s in collector.spans for a in s.attributes if a.key == "convoy.request_id"]  # type: ignore[attr-defined]
    assert "lost" in request_ids


def test_a_missing_collector_affects_no_request_and_no_stop(zoo: Path) -> None:
    with RunningService(zoo, otlp_endpoint="http://127.0.0.1:9") as service:
        assert service.client.post(CLASSIFY, content=image_bytes()).status_code == 200
        service.terminate()
        assert service.exit_code() == 0


def test_under_load_the_log_is_sampled_for_answers_and_errors_alike(zoo: Path) -> None:
    with RunningService(zoo, log_requests_per_s=LOG_LINES_PER_S) as service:
        with httpx.Client(base_url=service.url) as client:
            for _ in range(100):
                client.post(CLASSIFY, content=image_bytes())
                assert client.post(CLASSIFY, content=b"no image").status_code == 400
            assert client.get("/" + "x" * 10_000).status_code == 404
            client.get("/health/live")
        for _ in range(100):
            with RawConnection(service) as connection:
                connection.send(b"no request\r\n\r\n")
                connection.read_response()
        service.terminate()
        service.exit_code()
        lines = [line for line in service.lines if line["event"] == "request"]
        bad = [line for line in lines if line["status"] == 400 and "path" in line]
        good = [line for line in lines if line.get("path") == CLASSIFY and line["status"] == 200]
        for some in (bad, good, [line for line in lines if line.get("error") == "bad_http"]):
            assert len(some) < 100
        assert bad
        assert good
        assert sum(line.get("skipped", 0) for line in lines) > 0
        assert {line["model"] for line in bad} == {"linear"}, "the log line of a failed request includes its model"
        assert max(len(line.get("path", "")) for line in lines) <= MAX_TEXT_LENGTH


def test_predictions_memory_and_requests_in_flight_are_measured(service: RunningService) -> None:
    before = service.metric("convoy_predictions_total", model="linear")
    label = service.client.post(CLASSIFY, content=image_bytes(seed=3)).json()["predictions"][0]["label"]
    assert service.metric("convoy_predictions_total", model="linear", label=label) >= 1
    assert service.metric("convoy_predictions_total", model="linear") >= before + 1
    service.wait_until(lambda: service.metric("convoy_requests_in_flight") == 1)  # the request for the metrics itself
    assert service.metric("process_resident_memory_bytes") > 30e6


def test_from_start_to_stop_every_line_is_one_of_convoys_events(zoo: Path) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    forms = [head + b"bytes\r\n--x--\r\nmore", head + b"bytes\r\n--x!", b"--x\r\nA B: c", b"x"]
    with RunningService(zoo, log_level="debug", log_requests_per_s=0) as service:
        for body in forms:
            headers = {"content-type": "multipart/form-data; boundary=x"}
            assert service.client.post(CLASSIFY, content=body, headers=headers).status_code == 400
        with RawConnection(service) as connection:
            connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
            assert connection.read_head()[0] == 200
        with RawConnection(service) as connection:
            connection.send(b"no http\r\n\r\n")
            assert connection.read_head()[0] == 400
    not_compared = ("request", "models run on onnxruntime's own engine")  # the engine depends on the processor
    events = [line["event"] for line in service.lines if line["event"] not in not_compared]
    assert [event for event in events if event not in ("version is loaded", "version is unloaded")] == [
        "starting",
        "accepting connections",
        "ready",
        "stopping",
        "stopped",
    ]
    requests = [line for line in service.lines if line["event"] == "request"]
    assert {line["error"] for line in requests if "request_id" not in line} == {"bad_http"}
