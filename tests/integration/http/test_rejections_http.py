"""Rejections under load have the same reason in every protocol, for one image and for many."""

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.images import encode, image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import endless_graph, slow_graph
from tests.support.service_process import RunningService

SHAPE = (8, 8, 1)
MAX_QUEUE_IMAGES = 8
IMAGE = image_bytes()
TENSOR = {"name": "image", "shape": [1, *SHAPE], "datatype": "UINT8", "data": [0] * 64}
PIXELS = np.zeros(SHAPE, np.uint8).tolist()
Send = Callable[[httpx.Client, str, dict[str, str]], httpx.Response]


def post(path: str, **body: Any) -> Send:
    return lambda client, model, headers: client.post(path.format(model=model), headers=headers, **body)


REQUESTS: dict[str, Send] = {
    "one image": post("/api/v1/models/{model}/classify", content=IMAGE),
    "many images": post("/api/v1/models/{model}/classify/batch", files=[("files", IMAGE)] * 2),
    "many images as JSON": post(
        "/api/v1/models/{model}/classify/batch", json={"images": [{"data": base64.b64encode(IMAGE).decode()}] * 2}
    ),
    "V1": post("/v1/models/{model}:predict", json={"instances": [PIXELS]}),
    "V2": post("/v2/models/{model}/infer", json={"inputs": [TENSOR]}),
}


def code_of(reply: httpx.Response) -> str:
    """Returns the code of an error in either protocol's format."""
    body = reply.json()
    return str(body["code"] if isinstance(body["error"], str) else body["error"]["code"])


def check_rejections(service: RunningService, model: str, code: str, status: int, timeout_ms: int) -> None:
    """Sends all kinds of requests at once, and checks that each is rejected with this code and status, and counted."""
    headers = {"x-request-timeout-ms": str(timeout_ms)}
    with ThreadPoolExecutor(len(REQUESTS)) as threads:
        sent = {name: threads.submit(send, service.client, model, headers) for name, send in REQUESTS.items()}
        replies = {name: future.result() for name, future in sent.items()}
    assert {name: (code_of(reply), reply.status_code) for name, reply in replies.items()} == dict.fromkeys(
        REQUESTS, (code, status)
    )
    assert {"retry-after" in reply.headers for reply in replies.values()} == {status == 429}
    assert service.metric("convoy_refused_total", model=model, reason=code) == len(REQUESTS)
    assert service.metric("convoy_refused_total") == len(REQUESTS)


def test_a_request_whose_answer_would_be_late_is_rejected_at_once(tmp_path: Path) -> None:
    """Runs are sequential: 28 images are queued, but the timeout of each request allows only ten runs."""
    write_version(tmp_path, "slow", graph=slow_graph(SHAPE, 4, rounds=60))
    with RunningService(tmp_path, max_batch_size=1) as service, ThreadPoolExecutor(1) as other:
        run_ms = service.client.get("/api/v1/models/slow").json()["versions"][0]["batch_ms"]["1"]
        path = f"{service.url}/api/v1/models/slow/classify/batch"
        good = other.submit(httpx.post, path, files=[("files", IMAGE)] * 28, timeout=60)
        service.wait_until(lambda: service.metric("convoy_running_batches", model="slow") == 1)
        check_rejections(service, "slow", "too_late_to_start", 429, timeout_ms=10 * round(run_ms))
        assert good.result().status_code == 200


@contextmanager
def hanging_model(root: Path) -> Iterator[RunningService]:
    """Yields a service whose model `hangs` has not returned from a run, which expected run times do not reflect."""
    write_version(root, "hangs", graph=endless_graph(SHAPE, 4))
    with RunningService(root, drain_timeout_s=2, max_queue_images=MAX_QUEUE_IMAGES) as service:
        white = encode(np.full(SHAPE, 255, np.uint8))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.url}/api/v1/models/hangs/classify", content=white, timeout=1)
        yield service


def test_a_request_that_finds_the_queue_full_is_rejected_at_once(tmp_path: Path) -> None:
    with hanging_model(tmp_path) as service, ThreadPoolExecutor(1) as other:
        path = f"{service.url}/v2/models/hangs/infer"
        headers = {"inference-header-content-length": "0", "x-request-timeout-ms": "5000"}
        filler = other.submit(httpx.post, path, content=bytes(64 * MAX_QUEUE_IMAGES), headers=headers, timeout=60)
        service.wait_until(lambda: service.metric("convoy_queue_images", model="hangs") == MAX_QUEUE_IMAGES)
        check_rejections(service, "hangs", "queue_full", 429, timeout_ms=10_000)
        assert filler.result().status_code == 504


def test_a_request_expires_while_it_waits(tmp_path: Path) -> None:
    """The timeout is longer than the run has been overdue, so that it could still end in time."""
    with hanging_model(tmp_path) as service:
        check_rejections(service, "hangs", "expired_in_queue", 504, timeout_ms=8_000)


def test_a_request_to_a_model_that_hangs_is_rejected_at_once(tmp_path: Path) -> None:
    with hanging_model(tmp_path) as service:
        check_rejections(service, "hangs", "too_late_to_start", 429, timeout_ms=300)


def test_a_time_that_an_idle_model_would_exceed_is_rejected_at_once(tmp_path: Path) -> None:
    write_version(tmp_path, "slow", graph=slow_graph(SHAPE, 4, rounds=60))
    with RunningService(tmp_path) as service:
        assert REQUESTS["one image"](service.client, "slow", {}).status_code == 200
        check_rejections(service, "slow", "deadline_too_short", 504, timeout_ms=5)
