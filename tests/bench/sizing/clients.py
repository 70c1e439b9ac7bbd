"""Clients that keep a service busy: single images on several connections, and batches on one of them."""

import collections
import http.client
import io
import threading
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from service.model_store.manifest import Manifest
from tests.load.traffic import FORM, multipart_form
from tests.support.background_threads import BackgroundThreads

CLIENTS = 8
BATCH_IMAGES = 32
PHOTO_PX = (500, 375)
JPEG_QUALITY = 90
TIMEOUT_S = 180.0
REJECTION_PAUSE_S = 0.2


class Payload(NamedTuple):
    path: str
    body: bytes
    content_type: str
    images: int


def photograph(manifest: Manifest) -> bytes:
    """Returns a JPEG of 500x375 pixels for a model with color input, or a PNG of the model's size for a model with gray
    input."""
    random = np.random.default_rng(0)
    if manifest.input.channels == 1:
        image = Image.fromarray(random.integers(0, 256, manifest.input.shape[:2], np.uint8))
    else:
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        image = coarse.resize(PHOTO_PX, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if manifest.input.channels == 1 else "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def single(model: str, image: bytes) -> Payload:
    return Payload(f"/api/v1/models/{model}/classify", image, "application/octet-stream", 1)


def batch(model: str, image: bytes) -> Payload:
    body = multipart_form("files", [image] * BATCH_IMAGES)
    return Payload(f"/api/v1/models/{model}/classify/batch", body, FORM, BATCH_IMAGES)


class Clients(BackgroundThreads):
    """Sends `payloads` until the context ends, each over its own connection."""

    def __init__(self, address: str, payloads: list[Payload]) -> None:
        self._address = address
        super().__init__(*(partial(self._send, one) for one in payloads))
        self.statuses: collections.Counter[int] = collections.Counter()
        self.images = self.batches = 0
        self._lock = threading.Lock()

    def _send(self, payload: Payload) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        while not self.stopping.is_set():
            connection.request("POST", payload.path, payload.body, {"Content-Type": payload.content_type})
            reply = connection.getresponse()
            reply.read()
            with self._lock:
                self.statuses[reply.status] += 1
                self.images += payload.images * (reply.status == 200)
                self.batches += payload.images > 1 and reply.status == 200
            if reply.status != 200:
                self.stopping.wait(REJECTION_PAUSE_S)
        connection.close()
