"""Every error code over HTTP: correct status, stable code, message and hint."""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.api.http.status_codes import STATUS
from service.exit_codes import EXIT_RETRY
from tests.integration.conftest import MAX_BODY_BYTES, MAX_QUEUE_IMAGES, SHAPE
from tests.support.images import encode, image_bytes, random_pixels
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import out_of_memory_graph, slow_graph
from tests.support.service_process import RunningService

ROOT = Path(__file__).parents[3]
LINEAR = "/api/v1/models/linear/classify"
BATCH = LINEAR + "/batch"
EXPLAIN = "/api/v1/models/linear/explain"
Request = Callable[[httpx.Client], httpx.Response]


def bomb() -> bytes:
    """Returns a PNG of a few bytes whose header states 50,000x50,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(50_001 * 2))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "TIFF")
    return file.getvalue()


def chunks(total: int) -> Iterator[bytes]:
    """Yields a body without a Content-Length."""
    for _ in range(total // 1000):
        yield bytes(1000)


def post(path: str = LINEAR, **kwargs: object) -> Request:
    return lambda client: client.post(path, **kwargs)  # type: ignore[arg-type]


WHITE = np.full(SHAPE, 255, np.uint8)
CASES: list[tuple[str, str, int, Request]] = [
    ("text", "bad_image", 400, post(content=b"hello")),
    ("empty", "bad_image", 400, post(content=b"")),
    ("truncated", "bad_image", 400, post(content=image_bytes(40, 40)[:200])),
    ("tiff", "unsupported_image", 415, post(content=tiff())),
    ("form without its file", "bad_request", 400, post(files={"image": image_bytes()})),
    ("form with two files", "bad_request", 400, post(files=[("file", b"a"), ("file", b"b")])),
    ("form cut off", "bad_request", 400, post(content=b"--x\r\n", headers={"content-type": "multipart/form-data"})),
    (
        "batch that is no json",
        "bad_request",
        400,
        post(BATCH, content=b"{", headers={"content-type": "application/json"}),
    ),
    ("no such model", "unknown_model", 404, post("/api/v1/models/nope/classify", content=image_bytes())),
    ("no such model to describe", "unknown_model", 404, lambda client: client.get("/api/v1/models/nope")),
    ("no such version", "unknown_version", 404, post(params={"version": "9"}, content=image_bytes())),
    (
        "no such document",
        "unknown_document",
        404,
        lambda client: client.get("/api/v1/models/linear/versions/2/manifest.json"),
    ),
    (
        "no such method to explain",
        "bad_parameter",
        422,
        post(EXPLAIN, params={"method": "guess"}, content=image_bytes()),
    ),
    ("no such class to explain", "bad_parameter", 422, post(EXPLAIN, params={"class": "cat"}, content=image_bytes())),
    ("no feature maps", "bad_parameter", 422, post(EXPLAIN, params={"method": "features"}, content=image_bytes())),
    ("body over the limit", "body_too_large", 413, post(content=bytes(MAX_BODY_BYTES + 1))),
    ("body over the limit, in chunks", "body_too_large", 413, post(content=chunks(2 * MAX_BODY_BYTES))),
    ("decompression bomb", "image_too_large", 413, post(content=bomb())),
    (
        "more images than may wait",
        "too_many_images",
        413,
        post(BATCH, json={"images": [{"data": "AAAA"}] * (MAX_QUEUE_IMAGES + 1)}),
    ),
    ("batch of unknown type", "unsupported_media_type", 415, post(BATCH, content=b"x")),
    ("top_k of nought", "bad_parameter", 422, post(params={"top_k": 0}, content=image_bytes())),
    ("top_k of words", "bad_parameter", 422, post(params={"top_k": "all"}, content=image_bytes())),
    ("misspelt parameter", "bad_parameter", 422, post(params={"topk": 1}, content=image_bytes())),
    ("no time at all", "bad_parameter", 422, post(content=image_bytes(), headers={"x-request-timeout-ms": "0"})),
    ("batch without images", "bad_parameter", 422, post(BATCH, json={"images": []})),
    ("model that fails", "model_failed", 500, post("/api/v1/models/brittle/classify", content=encode(WHITE))),
    ("no such path", "not_found", 404, lambda client: client.get("/nowhere")),
    ("wrong method", "method_not_allowed", 405, lambda client: client.get(LINEAR)),
]
CODES_TESTED_BELOW = {
    "queue_full",
    "deadline_exceeded",
    "deadline_too_short",
    "not_ready",
    "out_of_memory",
    "internal",
    "broken_model",
}
CODES_TESTED_BELOW |= {"bad_tensor", "not_allowed", "broken_version", "not_everywhere", "bad_state", "forbidden"}
CODES_TESTED_ELSEWHERE = {
    "bad_http": "test_connection_limits_http.py::test_a_request_that_is_not_http_is_answered_with_400",
    "unsupported_http_version": "test_request_smuggling_http.py::test_another_version_of_http_is_named_as_the_cause",
    "too_many_connections": (
        "unit/service/server/test_connection_limits.py::test_a_connection_for_health_checks_answers_nothing_else"
    ),
    "response_too_large": (
        "test_large_responses_http.py::test_a_response_over_the_limit_is_rejected_before_the_model_runs"
    ),
    "slow_request": "test_connection_limits_http.py::test_slow_headers_are_answered_with_408",
    "headers_too_large": "test_connection_limits_http.py::test_too_large_headers_end_with_431",
    "unauthenticated": "test_access_http.py::test_a_rejection_states_how_to_get_access",
    "memory_full": "test_body_budget_http.py::test_a_body_in_chunks_is_rejected_when_it_passes_the_bound",
    "draining": "test_stop.py::test_queued_requests_are_answered_and_readiness_fails_at_once",
    "model_hung": "test_liveness.py::test_liveness_fails_when_a_run_does_not_return",
    "too_late_to_start": "test_rejections_http.py::test_a_request_whose_answer_would_be_late_is_rejected_at_once",
    "expired_in_queue": "test_rejections_http.py::test_a_request_expires_while_it_waits",
    "too_many_pixels": "test_client_service.py::test_images_that_are_too_many_pixels_for_one_request_go_in_several",
}
"""Codes that need a separate service, with the test that starts it."""
ROW = re.compile(r"^\| (\d{3}) \| `(\w+)` \|", re.MULTILINE)


def check_error(reply: httpx.Response, code: str, status: int) -> None:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["code"] == code
    assert error["message"].endswith(".")
    assert error["hint"].endswith(".")
    assert "x-request-id" in reply.headers


@pytest.mark.parametrize(("code", "status", "send_request"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_error(service: RunningService, code: str, status: int, send_request: Request) -> None:
    check_error(send_request(service.client), code, status)
    assert service.client.post(LINEAR, content=image_bytes()).status_code == 200


def test_every_documented_code_is_provoked() -> None:
    table = {code: int(status) for status, code in ROW.findall((ROOT / "docs/http-api.md").read_text())}
    assert {kind.code for kind in STATUS} < table.keys()
    assert table.keys() == {case[1] for case in CASES} | CODES_TESTED_BELOW | CODES_TESTED_ELSEWHERE.keys()
    assert {case[1]: case[2] for case in CASES}.items() <= table.items()


@pytest.mark.parametrize("where", sorted(set(CODES_TESTED_ELSEWHERE.values())))
def test_referenced_tests_exist(where: str) -> None:
    file, _, name = where.partition("::")
    assert f"def {name}(" in next(Path(__file__).parents[2].rglob(file)).read_text()


def test_an_internal_error_is_reported_as_one(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site_patch = "import service.api.native.model_files\nservice.api.native.model_files._read = lambda *given: 1 / 0\n"
    site_patch += "from starlette.staticfiles import StaticFiles\n"
    site_patch += "def not_allowed(*given): raise PermissionError\nStaticFiles.lookup_path = not_allowed\n"
    (tmp_path / "sitecustomize.py").write_text(site_patch)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with RunningService(zoo) as service:
        for path in ("/api/v1/models/linear/versions/2/card.md", "/playground/app.js"):
            reply = service.client.get(path)
            check_error(reply, "internal", 500)
            assert "division" not in reply.text
            request_id = reply.headers["x-request-id"]
            service.wait_for_line(event="unexpected error", request_id=request_id)
        assert service.client.post(LINEAR, content=image_bytes()).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v2/models/linear/infer", b"{}", 400, "bad_tensor"),
        ("/v1/models/linear:predict", b"{}", 400, "bad_tensor"),
        ("/v2/repository/models/linear/load", b"{}", 403, "not_allowed"),
    ],
)
def test_other_protocols_get_texts_and_the_log_gets_codes(
    service: RunningService, path: str, body: bytes, status: int, code: str
) -> None:
    reply = service.client.post(path, content=body)
    assert reply.status_code == status
    assert reply.json()["error"].endswith(".")
    service.wait_for_line(request_id=reply.headers["x-request-id"], error=code)


def test_a_key_without_the_scope_is_rejected_with_the_missing_scope(zoo: Path) -> None:
    key = "a-key-long-enough"
    with RunningService(zoo, keys=f"prometheus metrics {key}") as service:
        reply = service.client.post(LINEAR, content=image_bytes(), headers={"authorization": f"Bearer {key}"})
        check_error(reply, "forbidden", 403)
        service.wait_for_line(request_id=reply.headers["x-request-id"], error="forbidden")


def test_a_change_that_cannot_be_written_down_is_not_made(zoo: Path) -> None:
    """The state file's folder is not writable even for root, as on a read-only disk."""
    with RunningService(zoo, repository_changes="true", state="/sys/state.json") as service:
        reply = service.client.post("/v2/repository/models/linear/unload")
        assert reply.status_code == 500
        assert "/sys/state.json cannot be written" in reply.json()["error"]
        service.wait_for_line(event="request", request_id=reply.headers["x-request-id"], error="bad_state")
        assert service.client.post(LINEAR, content=image_bytes()).status_code == 200


def test_loading_a_broken_version_returns_the_error(tmp_path: Path) -> None:
    write_version(tmp_path / "models", "linear", 1)
    with RunningService(tmp_path / "models", repository_changes="true") as service:
        damaged_version = write_version(tmp_path / "made", "other", 1)
        (damaged_version / "model.onnx").write_bytes(b"not what the manifest says")
        damaged_version.parent.rename(tmp_path / "models/other")
        reply = service.client.post("/v2/repository/models/other/load")
        assert reply.status_code == 400
        service.wait_for_line(request_id=reply.headers["x-request-id"], error="broken_version")


def test_a_change_that_not_every_worker_carried_out_in_time_is_reported(tmp_path: Path) -> None:
    write_version(tmp_path / "models", "linear", 1)
    slow = write_version(tmp_path / "made", "slow", 1, graph=slow_graph(SHAPE, 4, rounds=200)).parent
    settings = {"workers": 2, "repository_changes": "true", "repository_timeout_s": 0.001}
    with RunningService(tmp_path / "models", **settings) as service:
        slow.rename(tmp_path / "models/slow")
        reply = service.client.post("/v2/repository/models/slow/load")
        assert reply.status_code == 504
        assert "Not carried out within 0.001 s" in reply.json()["error"]
        service.wait_for_line(request_id=reply.headers["x-request-id"], error="not_everywhere")


def test_overload_is_rejected_with_a_time_and_recovers(service: RunningService) -> None:
    def classify(seed: int) -> httpx.Response:
        files = [("files", image_bytes(seed=seed))] * 16
        return httpx.post(f"{service.url}/api/v1/models/slow/classify/batch", files=files, timeout=60)

    with ThreadPoolExecutor(16) as clients:
        replies = list(clients.map(classify, range(16)))
    refused = [reply for reply in replies if reply.status_code != 200]
    assert 0 < len(refused) < 16
    for reply in refused:
        check_error(reply, "queue_full", 429)
        assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert service.metric("convoy_refused_total", model="slow", reason="queue_full") >= len(refused)
    assert classify(0).status_code == 200


def test_a_failing_batch_leaves_other_requests_alone(service: RunningService) -> None:
    def classify(pixels: np.ndarray) -> int:
        return httpx.post(f"{service.url}/api/v1/models/brittle/classify", content=encode(pixels)).status_code

    with ThreadPoolExecutor(8) as clients:
        codes = list(clients.map(classify, [WHITE if i % 2 else random_pixels(*SHAPE, seed=i) for i in range(40)]))
    assert codes[1::2] == [500] * 20
    assert codes[0::2] == [200] * 20  # although some shared a batch with an invalid image
    assert classify(random_pixels(*SHAPE)) == 200
    assert [line for line in service.lines if line["event"] == "no json"] == [], "a library wrote to the log"


def test_an_image_on_which_the_model_fails_has_an_error_entry(service: RunningService) -> None:
    files = [("files", encode(random_pixels(*SHAPE))), ("files", encode(WHITE))]
    reply = service.client.post("/api/v1/models/brittle/classify/batch", files=files)
    good, bad = reply.json()["results"]
    assert reply.status_code == 200
    assert len(good["predictions"]) == 4
    assert bad["error"]["code"] == "model_failed"
    line = service.wait_for_line(event="model failed", request_id=reply.headers["x-request-id"])
    assert line["images"] == 1
    assert line["reason"].startswith(bad["error"]["message"])
    assert "ONNXRuntimeError" in line["reason"]
    assert "ONNXRuntimeError" not in reply.text


def test_a_batch_without_memory_gets_retry_after_and_the_next_is_answered(tmp_path: Path) -> None:
    write_version(tmp_path, "hungry", graph=out_of_memory_graph(SHAPE, 4))
    path = "/api/v1/models/hungry/classify"
    with RunningService(tmp_path) as service:
        for _ in range(2):
            refused = service.client.post(path, content=encode(WHITE))
            check_error(refused, "out_of_memory", 503)
            assert refused.headers["retry-after"] == "1"
            line = service.wait_for_line(event="model failed", request_id=refused.headers["x-request-id"])
            assert "allocate" in line["reason"]
            assert service.client.post(path, content=encode(random_pixels(*SHAPE))).status_code == 200


def test_a_deadline_answers_in_time(zoo: Path) -> None:
    with RunningService(zoo, request_timeout_ms=20) as service:
        check_error(
            service.client.post("/api/v1/models/slow/classify", content=image_bytes()), "deadline_exceeded", 504
        )


def test_a_request_may_set_its_own_deadline(service: RunningService) -> None:
    slow = "/api/v1/models/slow/classify"
    long, short = {"x-request-timeout-ms": "20000"}, {"x-request-timeout-ms": "5"}
    assert service.client.post(slow, content=image_bytes(), headers=long).status_code == 200
    check_error(service.client.post(slow, content=image_bytes(), headers=short), "deadline_too_short", 504)


def test_a_broken_version_is_reported_and_does_not_hide_the_others(tmp_path: Path) -> None:
    write_version(tmp_path, "good", 1)
    damaged_version = write_version(tmp_path, "broken", 1)
    (damaged_version / "model.onnx").write_bytes(b"not what the manifest says")
    with RunningService(tmp_path, wait_ready=False) as service:
        assert "sha256" in service.wait_for("version is broken")["reason"]
        service.wait_for("accepting connections")
        ready = service.client.get("/health/ready")
        check_error(ready, "not_ready", 503)
        assert "sha256" in ready.json()["error"]["reasons"]["broken"]
        refused = service.client.post("/api/v1/models/broken/classify", content=image_bytes())
        check_error(refused, "broken_model", 503)
        assert "retry-after" not in refused.headers
        assert service.client.post("/api/v1/models/good/classify", content=image_bytes()).status_code == 200


def test_a_broken_newest_version_keeps_the_previous_version_in_service(tmp_path: Path) -> None:
    write_version(tmp_path, "linear", 1)
    newest = write_version(tmp_path, "linear", 2)
    (newest / "manifest.json").write_text("{}")
    with RunningService(tmp_path) as service:
        assert service.client.post(LINEAR, content=image_bytes()).json()["version"] == "1"


def test_without_the_requested_gpu_it_is_not_ready_and_states_the_reason(tmp_path: Path) -> None:
    write_version(tmp_path, "linear", 1)
    with RunningService(tmp_path, wait_ready=False, device="cuda") as service:
        assert "CUDAExecutionProvider" in service.wait_for("version is broken")["reason"]
        service.wait_for("accepting connections")
        reply = service.client.get("/health/ready")
        check_error(reply, "not_ready", 503)
        assert "CUDAExecutionProvider" in reply.json()["error"]["reasons"]["linear"]


def test_without_any_model_it_lives_and_says_why_it_is_not_ready(tmp_path: Path) -> None:
    with RunningService(tmp_path / "nothing", wait_ready=False) as service:
        service.wait_for("accepting connections")
        assert service.client.get("/health/live").status_code == 200
        check_error(service.client.get("/health/ready"), "not_ready", 503)
        service.wait_until(lambda: "Add a model as" in service.client.get("/health/ready").text)


def test_a_taken_port_is_reported_without_a_traceback(service: RunningService, zoo: Path) -> None:
    import subprocess

    from tests.support.service_process import CONVOY

    command = [CONVOY, "serve", "--models", zoo, "--port", service.url.rsplit(":", 1)[1]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert result.returncode == EXIT_RETRY
    assert "choose another port with --port or CONVOY_PORT" in result.stderr
    assert "Traceback" not in result.stderr
