"""Traffic of well-behaved and difficult clients that a healthy service handles correctly, a few requests per second.

Each kind of traffic has its own thread and connection. No kind is a fault of the service, so no alert may fire.
"""

import collections
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx

from tests.bench.resnet50 import FLOAT32 as RESNET50
from tests.support.background_threads import BackgroundThreads

LENET5 = "mnist-lenet5"
SEVEN = Path(__file__).parents[1] / "data/seven.png"
TIMEOUT_S = 60
SHORT_DEADLINE_MS = 5
UPLOAD_S, UPLOAD_CHUNKS = 8.0, 16
BATCH_IMAGES = {LENET5: 16, RESNET50: 4}
EXPLANATIONS, EXPLANATIONS_AT_ONCE = "explanations, several at once", 4


class HealthyTraffic(BackgroundThreads):
    """Sends requests within the context. `answers` counts responses by kind and status."""

    def __init__(self, url: str, photo: bytes) -> None:
        self.answers: collections.Counter[tuple[str, int]] = collections.Counter()
        self._url = url
        self._images = {LENET5: SEVEN.read_bytes(), RESNET50: photo}
        kinds: dict[str, tuple[Callable[[httpx.Client], httpx.Response], float]] = {
            "LeNet-5, single images": (lambda client: self._classify(client, LENET5), 0.5),
            "ResNet-50, single images": (lambda client: self._classify(client, RESNET50), 2.0),
            "LeNet-5, batches": (lambda client: self._batch(client, LENET5), 2.0),
            "ResNet-50, batches": (lambda client: self._batch(client, RESNET50), 20.0),
            "slow uploads": (self._upload_slowly, 1.0),
            "time limits of 5 ms": (self._limit_too_short, 5.0),
            EXPLANATIONS: (self._explain, 10.0),
            "images that cannot be read": (self._send_damaged, 5.0),
        }
        others = [partial(self._send, EXPLANATIONS, *kinds[EXPLANATIONS])] * (EXPLANATIONS_AT_ONCE - 1)
        super().__init__(*(partial(self._send, kind, *how) for kind, how in kinds.items()), *others)

    def _send(self, kind: str, send: Callable[[httpx.Client], httpx.Response], mean_pause_s: float) -> None:
        rng = random.Random(kind)
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as client:
            while not self.stopping.wait(min(rng.expovariate(1 / mean_pause_s), 5 * mean_pause_s)):
                try:
                    status = send(client).status_code
                except httpx.RemoteProtocolError:  # an idle connection that the service closed at the same time
                    status = 0
                self.answers[kind, status] += 1

    def _classify(self, client: httpx.Client, model: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return client.post(f"/api/v1/models/{model}/classify", content=self._images[model], headers=headers)

    def _batch(self, client: httpx.Client, model: str) -> httpx.Response:
        files = [("files", ("image", self._images[model]))] * BATCH_IMAGES[model]
        return client.post(f"/api/v1/models/{model}/classify/batch", files=files)

    def _upload_slowly(self, client: httpx.Client) -> httpx.Response:
        photo = self._images[RESNET50]
        size = -(-len(photo) // UPLOAD_CHUNKS)

        def chunks() -> Iterator[bytes]:
            for start in range(0, len(photo), size):
                yield photo[start : start + size]
                time.sleep(UPLOAD_S / UPLOAD_CHUNKS)

        return client.post(f"/api/v1/models/{RESNET50}/classify", content=chunks())

    def _limit_too_short(self, client: httpx.Client) -> httpx.Response:
        return self._classify(client, RESNET50, {"X-Request-Timeout-Ms": str(SHORT_DEADLINE_MS)})

    def _explain(self, client: httpx.Client) -> httpx.Response:
        return client.post(f"/api/v1/models/{LENET5}/explain", content=self._images[LENET5])

    def _send_damaged(self, client: httpx.Client) -> httpx.Response:
        return client.post(f"/api/v1/models/{LENET5}/classify", content=b"not an image")
