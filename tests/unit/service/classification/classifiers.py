"""A classifier over the models of a folder, with decoders that a test can keep busy."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from service.classification.classifier import Classifier
from service.classification.top_k import Probabilities
from service.errors import ConvoyError
from service.fair_threads import Owner
from service.imaging import model_input
from service.imaging.decode_pool import DecodePool
from service.imaging.limits import DECODED_BYTES_PER_PIXEL, DecodeLimits
from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings

MAX_QUEUE_IMAGES = 8
MAX_PIXELS = 10_000
MAX_INPUT_BYTES = 64 * 17
MAX_DECODED_BYTES = DECODED_BYTES_PER_PIXEL * MAX_PIXELS


def with_classifier(
    root: Path,
    test: Callable[[Classifier, Registry], Awaitable[None]],
    busy: int = 0,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
    max_header_pixels: int = MAX_PIXELS,
) -> None:
    """Runs the test with a classifier over the models in `root`. `busy` jobs occupy its decoders until the test
    ends."""

    async def run() -> None:
        metrics = Metrics()
        registry = Registry(
            Repository(root), Settings(max_queue_images=MAX_QUEUE_IMAGES, max_input_bytes=MAX_INPUT_BYTES), metrics
        )
        await registry.reconcile(DesiredState())
        with closing(DecodePool(2)) as decode_pool:
            classifier = Classifier(
                registry,
                metrics,
                decode_pool,
                limits=DecodeLimits(MAX_PIXELS, max_header_pixels, max_decoded_bytes),
                request_timeout_s=10,
            )
            test_ended = threading.Event()
            jobs = [decode_pool.run(Owner("somebody else"), 1, test_ended.wait) for _ in range(busy)]
            try:
                await asyncio.wait_for(test(classifier, registry), 60)
            finally:
                test_ended.set()
                await asyncio.gather(*jobs)
        await registry.close()

    asyncio.run(run())


async def predict(classifier: Classifier, data: bytes) -> Probabilities:
    with classifier.context("linear", None) as context:
        return await classifier.predict(context, data)


async def predict_many(classifier: Classifier, images: list[bytes | ConvoyError]) -> list[Probabilities | ConvoyError]:
    with classifier.context("linear", None) as context:
        return await classifier.predict_many(context, images)


class OverlapDetector:
    """Reads pixels as the service does, but waits for a concurrent second read or a timeout first."""

    def __init__(self, wait_s: float) -> None:
        self.overlapped = False
        self._barrier = threading.Barrier(2)
        self._wait_s = wait_s
        self._read = model_input.read_pixels

    def read(self, image: Image.Image, channels: int, background: int) -> np.ndarray:
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait(self._wait_s)
            self.overlapped = True
        return self._read(image, channels, background)
