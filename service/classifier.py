"""Pictures in, predictions out: the heart that REST, batch jobs and the command line share. Knows no HTTP."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service import images
from service.batcher import Answer
from service.errors import ConvoyError, Overloaded
from service.metrics import Metrics
from service.preprocess import prepare
from service.registry import Registry, Served

# A picture up to this size is decoded in less time than a thread needs to take over.
INLINE_PIXELS = 64 * 64


@dataclass(slots=True)
class Prediction:
    """One class: its index, its label, and its probability."""

    index: int
    label: str
    probability: float


class Timing(NamedTuple):
    """How a request travelled, in seconds, and the size of the batch it rode in (of its last, if it was split)."""

    batch_size: int
    decode_s: float
    queue_s: float
    compute_s: float


class Classification(NamedTuple):
    """The answer about one picture, best class first."""

    model: str
    version: str
    predictions: list[Prediction]
    timing: Timing


class Classifications(NamedTuple):
    """The answers about many pictures, in the order they came; a broken picture has its error in its place."""

    model: str
    version: str
    results: list[list[Prediction] | ConvoyError]
    timing: Timing


class Classifier:
    """Decodes, queues, and names the best classes."""

    def __init__(
        self, registry: Registry, metrics: Metrics, decoders: Executor, *, max_pixels: int, request_timeout_s: float
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._decoders = decoders
        self._max_pixels = max_pixels
        self._timeout_s = request_timeout_s

    async def classify(self, model: str, version: str | None, picture: bytes, top_k: int) -> Classification:
        """The `top_k` best classes of one encoded picture.

        Raises UnknownModel, UnknownVersion, NotReady, BadImage, UnsupportedImage, ImageTooLarge, Overloaded,
        DeadlineExceeded, ModelFailed.
        """
        started_s = time.perf_counter()
        served = self._registry.get(model, version)
        self._reserve(served, 1)
        try:
            pixels = await self._decode(picture, served)
        except BaseException:
            served.batcher.release(1)
            raise
        decode_s = time.perf_counter() - started_s
        answer = await self._answer(served, pixels[np.newaxis], decode_s)
        predictions = best(answer.outputs[0], served.labels, top_k)
        return Classification(served.model, served.version, predictions, _timing(answer, decode_s))

    async def classify_many(
        self, model: str, version: str | None, pictures: Sequence[bytes | ConvoyError], top_k: int
    ) -> Classifications:
        """The same for many pictures at once; an error about one picture stands in that picture's place, be it found
        here or given in place of the picture.

        Raises what `classify` raises about everything else, and TooManyImages.
        """
        started_s = time.perf_counter()
        served = self._registry.get(model, version)
        self._reserve(served, len(pictures))
        decoded: list[NDArray[np.uint8] | ConvoyError] = []
        try:
            loop = asyncio.get_running_loop()
            jobs = (loop.run_in_executor(self._decoders, self._try_decode, picture, served) for picture in pictures)
            decoded = await asyncio.gather(*jobs)
        finally:
            good = [pixels for pixels in decoded if not isinstance(pixels, ConvoyError)]
            served.batcher.release(len(pictures) - len(good))
        decode_s = time.perf_counter() - started_s
        answer = await self._answer(served, np.stack(good), decode_s) if good else _nothing()
        rows = iter(answer.outputs)
        results = [d if isinstance(d, ConvoyError) else best(next(rows), served.labels, top_k) for d in decoded]
        return Classifications(served.model, served.version, results, _timing(answer, decode_s))

    def _reserve(self, served: Served, count: int) -> None:
        try:
            served.batcher.reserve(count)
        except Overloaded:
            self._metrics.refused.labels(served.model).inc()
            raise

    async def _decode(self, picture: bytes, served: Served) -> NDArray[np.uint8]:
        image = images.open_image(picture, self._max_pixels)
        if image.width * image.height <= INLINE_PIXELS:
            return _pixels(image, served)
        return await asyncio.get_running_loop().run_in_executor(self._decoders, _pixels, image, served)

    async def _answer(self, served: Served, batch: NDArray[np.uint8], decode_s: float) -> Answer:
        answer = await served.batcher.enqueue(batch, self._timeout_s - decode_s)
        self._metrics.decode_s.labels(served.model).observe(decode_s)
        self._metrics.queue_s.labels(served.model).observe(answer.queue_s)
        return answer

    def _try_decode(self, picture: bytes | ConvoyError, served: Served) -> NDArray[np.uint8] | ConvoyError:
        if isinstance(picture, ConvoyError):
            return picture
        try:
            return _pixels(images.open_image(picture, self._max_pixels), served)
        except ConvoyError as error:
            return error


def best(probabilities: NDArray[np.float32], labels: Sequence[str], top_k: int) -> list[Prediction]:
    """The `top_k` most probable classes of one row, float32 (classes,); equal ones in the order of their index."""
    order = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    return [Prediction(i, labels[i], p) for i, p in zip(order, probabilities[order].tolist(), strict=True)]


def _pixels(image: Image.Image, served: Served) -> NDArray[np.uint8]:
    how = served.manifest.preprocessing
    pixels = images.read_pixels(image, served.manifest.input.channels, how.background)
    return prepare(pixels, served.manifest.input, how)


def _timing(answer: Answer, decode_s: float) -> Timing:
    return Timing(answer.batch_size, decode_s, answer.queue_s, answer.compute_s)


def _nothing() -> Answer:
    return Answer(np.empty((0, 0), np.float32), 0, 0.0, 0.0)
