"""Simultaneous requests share batches, and a client that disconnects does not affect others."""

import base64
import json
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlparse

import httpx

from tests.integration.conftest import SHAPE
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import slow_graph
from tests.support.service_process import RunningService

BASE64 = base64.b64encode(image_bytes()).decode()
TENSOR = {"name": "image", "shape": [1, *SHAPE], "datatype": "UINT8", "data": [0] * 64}
REQUESTS = {
    "one image": ("/api/v1/models/slow/classify", image_bytes()),
    "many images": ("/api/v1/models/slow/classify/batch", json.dumps({"images": [{"data": BASE64}] * 2}).encode()),
    "V1": ("/v1/models/slow:predict", json.dumps({"instances": [{"b64": BASE64}]}).encode()),
    "V2": ("/v2/models/slow/infer", json.dumps({"inputs": [TENSOR]}).encode()),
    "explanation": ("/api/v1/models/slow/explain", image_bytes()),
}


def test_64_clients_at_once_share_batches(service: RunningService) -> None:
    before = batch_counts(service, "slow")
    with ThreadPoolExecutor(64) as clients:
        codes = list(clients.map(lambda seed: classify_status(service.url, "slow", seed), range(64)))
    after = batch_counts(service, "slow")
    assert codes == [200] * 64
    runs, images = after[0] - before[0], after[1] - before[1]
    assert images == 64
    assert runs < images / 2, f"{images} images ran in {runs} batches"


def test_a_client_that_disconnects_is_dropped_and_the_others_are_answered(tmp_path: Path) -> None:
    # A run takes half a second, so that disconnects are detected before the next batch forms.
    write_version(tmp_path, "slow", 1, graph=slow_graph(SHAPE, 4, rounds=2400))
    with RunningService(tmp_path, max_batch_size=2) as service, ThreadPoolExecutor(12) as clients:
        first = clients.submit(classify_status, service.url, "slow", 0)
        service.wait_until(lambda: service.metric("convoy_running_batches", model="slow") == 1)
        for path, body in REQUESTS.values():
            leave(service.url, path, body).close()
        others = [clients.submit(classify_status, service.url, "slow", seed) for seed in range(4)]
        assert [f.result() for f in (first, *others)] == [200] * 5
        assert batch_counts(service, "slow")[1] == 1 + 4, "images of disconnected clients were computed"
        assert service.metric("convoy_queue_images", model="slow") == 0


def batch_counts(service: RunningService, model: str) -> tuple[float, float]:
    """Returns the number of batches of the model so far, and the number of images in them."""
    runs = service.metric("convoy_batch_images_count", model=model)
    return runs, service.metric("convoy_batch_images_sum", model=model)


def classify_status(url: str, model: str, seed: int) -> int:
    return httpx.post(f"{url}/api/v1/models/{model}/classify", content=image_bytes(seed=seed), timeout=60).status_code


def leave(url: str, path: str, body: bytes) -> socket.socket:
    """Sends a complete request. Closing the returned socket resets the connection."""
    parsed = urlparse(url)
    sock = socket.create_connection((parsed.hostname, parsed.port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body)
    return sock
