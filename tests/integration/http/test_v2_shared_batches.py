"""Tensors of both protocols and images of Convoy's own endpoint share one queue and one batch."""

import base64
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from tests.integration.conftest import SHAPE
from tests.support.images import image_bytes, random_pixels
from tests.support.service_process import RunningService

FILL_MS = 1000  # long enough for all requests to arrive


def tensors_v2(client: httpx.Client) -> httpx.Response:
    values = np.stack([random_pixels(*SHAPE, seed=seed) for seed in range(3)])
    headers = {"Inference-Header-Content-Length": "0"}
    return client.post("/v2/models/linear/infer", content=values.tobytes(), headers=headers)


def image_v2(client: httpx.Client) -> httpx.Response:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(image_bytes()).decode()]}
    return client.post("/v2/models/linear/infer", json={"inputs": [tensor]})


def tensors_v1(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/models/linear:predict", json={"instances": [random_pixels(*SHAPE).tolist()] * 2})


def image_native(client: httpx.Client) -> httpx.Response:
    return client.post("/api/v1/models/linear/classify", content=image_bytes())


REQUESTS: list[Callable[[httpx.Client], httpx.Response]] = [tensors_v2, image_v2, tensors_v1, image_native]
IMAGES = 3 + 1 + 2 + 1


def test_all_endpoints_share_a_batch(zoo: Path) -> None:
    with RunningService(zoo, max_delay_ms=FILL_MS) as service, ThreadPoolExecutor(len(REQUESTS)) as clients:
        replies = list(clients.map(lambda send_request: send_request(service.client), REQUESTS))
        assert [reply.status_code for reply in replies] == [200] * len(REQUESTS)
        assert [batch_size(reply) for reply in replies] == [IMAGES] * len(REQUESTS)
        assert service.metric("convoy_batch_images_count", model="linear") == 1
        config = service.client.get("/v2/models/linear/config").json()
        assert config["dynamic_batching"] == {"max_queue_delay_microseconds": FILL_MS * 1000}


def batch_size(reply: httpx.Response) -> int:
    match = re.search(r"batch;desc=(\d+)", reply.headers["server-timing"])
    assert match
    return int(match[1])
