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
IMAGE_BYTES, MAX_INPUT_BYTES = 64, 1024
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


def check_rejections(
    service: RunningService, model: str, code: str, status: int, timeout_ms: int, priority: str = "normal"
) -> None:
    """Sends all kinds of requests at once, and checks that each is rejected with this code and status, and counted."""
    headers = {"x-request-timeout-ms": str(timeout_ms)} | ({"priority": "u=7"} if priority == "background" else {})
    with ThreadPoolExecutor(len(REQUESTS)) as threads:
        sent = {name: threads.submit(send, service.client, model, headers) for name, send in REQUESTS.items()}
        replies = {name: future.result() for name, future in sent.items()}
    assert {name: (code_of(reply), reply.status_code) for name, reply in replies.items()} == dict.fromkeys(
        REQUESTS, (code, status)
    )
    assert {"retry-after" in reply.headers for reply in replies.values()} == {status == 429}
    assert service.metric("convoy_refused_total", model=model, reason=code, priority=priority) == len(REQUESTS)
    assert service.metric("convoy_refused_total", priority=priority) == len(REQUESTS)


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
def hanging_model(root: Path, **settings: Any) -> Iterator[RunningService]:
    """Yields a service whose model `hangs` has not returned from a run. Its expected run times do not reflect this."""
    write_version(root, "hangs", graph=endless_graph(SHAPE, 4))
    with RunningService(root, drain_timeout_s=2, **{"max_queue_images": MAX_QUEUE_IMAGES} | settings) as service:
        white = encode(np.full(SHAPE, 255, np.uint8))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.url}/api/v1/models/hangs/classify", content=white, timeout=1)
        yield service


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (MAX_QUEUE_IMAGES, {}),
        (MAX_INPUT_BYTES // IMAGE_BYTES, {"max_queue_images": 1024, "max_input_bytes": MAX_INPUT_BYTES}),
    ],
    ids=["images", "bytes"],
)
def test_a_request_that_finds_the_queue_full_is_rejected_at_once(
    tmp_path: Path, count: int, settings: dict[str, int]
) -> None:
    with hanging_model(tmp_path, **settings) as service, ThreadPoolExecutor(1) as other:
        path = f"{service.url}/v2/models/hangs/infer"
        headers = {"inference-header-content-length": "0", "x-request-timeout-ms": "5000"}
        filler = other.submit(httpx.post, path, content=bytes(IMAGE_BYTES * count), headers=headers, timeout=60)
        service.wait_until(lambda: service.metric("convoy_queue_images", model="hangs") == count)
        for priority in ("normal", "background"):
            check_rejections(service, "hangs", "queue_full", 429, timeout_ms=10_000, priority=priority)
        assert filler.result().status_code == 504


def test_a_request_expires_while_it_waits(tmp_path: Path) -> None:
    """The timeout is longer than the time for which the run has been overdue, so the request could still finish in
    time."""
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


def test_more_images_than_ever_fit_into_memory_are_rejected_in_every_protocol(tmp_path: Path) -> None:
    write_version(tmp_path, "linear")
    base64_image = base64.b64encode(IMAGE).decode()

    def requests(count: int) -> dict[str, Send]:
        texts = TENSOR | {"shape": [count], "datatype": "BYTES", "data": [base64_image] * count}
        numbers = TENSOR | {"shape": [count, *SHAPE], "data": [0] * IMAGE_BYTES * count}
        batch, predict = "/api/v1/models/{model}/classify/batch", "/v1/models/{model}:predict"
        infer = "/v2/models/{model}/infer"
        return {
            "form": post(batch, files=[("files", IMAGE)] * count),
            "JSON": post(batch, json={"images": [{"data": base64_image}] * count}),
            "V1 tensors": post(predict, json={"instances": [PIXELS] * count}),
            "V1 images": post(predict, json={"instances": [{"b64": base64_image}] * count}),
            "V2 tensor": post(infer, json={"inputs": [numbers]}),
            "V2 images": post(infer, json={"inputs": [texts]}),
        }

    with RunningService(tmp_path, max_input_bytes=MAX_INPUT_BYTES) as service:
        most = MAX_INPUT_BYTES // IMAGE_BYTES
        fitting = {name: send(service.client, "linear", {}).status_code for name, send in requests(most).items()}
        assert fitting == dict.fromkeys(requests(most), 200)
        replies = {name: send(service.client, "linear", {}) for name, send in requests(most + 1).items()}
        expected = ("too_many_images", 413)
        assert {name: (code_of(reply), reply.status_code) for name, reply in replies.items()} == dict.fromkeys(
            replies, expected
        )
        assert service.metric("convoy_batch_images_sum", model="linear") == most * len(replies)
