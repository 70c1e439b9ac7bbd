"""Clients that continuously send images to two shipped models, each on its own connection."""

import collections
import time
from functools import partial
from pathlib import Path

import httpx

from tests.support.background_threads import BackgroundThreads

IMAGE = Path(__file__).parents[1] / "data/seven.png"
MODELS = ("mnist-lenet5", "cifar10-resnet20")
REFUSAL_PAUSE_S = 0.02  # pause after a rejection, so that clients do not spend all time on retries


class LoadClients(BackgroundThreads):
    """Runs `clients` threads within the context. `answers` counts responses by status."""

    def __init__(self, url: str, *, clients: int, images: int, pause_s: float = 0.0) -> None:
        self.answers: collections.Counter[int] = collections.Counter()
        self._url = url
        self._files = [("files", ("seven.png", IMAGE.read_bytes()))] * images
        self._pause_s = pause_s
        super().__init__(*(partial(self._send, MODELS[i % len(MODELS)]) for i in range(clients)))

    def _send(self, model: str) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            request = client.build_request("POST", f"/api/v1/models/{model}/classify/batch", files=self._files)
            request.read()
            while not self.stopping.is_set():
                status = client.send(request).status_code
                self.answers[status] += 1
                time.sleep(max(self._pause_s, REFUSAL_PAUSE_S if status == httpx.codes.TOO_MANY_REQUESTS else 0.0))
