"""Images in, probabilities out: the heart that REST, batch jobs and the command line share. Knows no HTTP."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.classification.request_context import RequestContext
from service.classification.top_k import Probabilities
from service.errors import ConvoyError, Overloaded, TooManyPixels
from service.imaging import decode
from service.imaging.decode_pool import DecodePool
from service.imaging.fast_png import decode_simple_png
from service.imaging.limits import decode_cost_pixels
from service.imaging.pixel_budget import PixelBudget, PixelSemaphore
from service.imaging.preprocess import preprocess
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Registry
from service.observability.metrics import Metrics

# An image up to this size is decoded in less time than a thread needs to take over.
MAX_INLINE_PIXELS = 64 * 64
MAX_INLINE_BYTES = 65536  # nor may it be packed in so many that reading them takes longer
# Tiny images are decoded some at a time: handing one to a thread and back costs as much as decoding it.
MAX_PART_IMAGES = 16
MAX_PART_BYTES = 16384
# All images of one request together have the pixels of so many: a body of 16 MB could cost minutes of a core.
MAX_REQUEST_PIXELS_FACTOR = 2


class Classifier:
    """Decodes, queues, and waits for the answer."""

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        decode_pool: DecodePool,
        *,
        max_pixels: int,
        request_timeout_s: float,
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._decode_pool = decode_pool
        self._max_pixels = max_pixels
        self._pixel_semaphore = PixelSemaphore(max_pixels)
        self._timeout_s = request_timeout_s

    def admit(self, model: str, version: str | None, count: int = 1) -> LoadedVersion:
        """Says no before any work on a request of about so many images, when there is no room for them; otherwise who
        would answer it.

        Raises UnknownModel, UnknownVersion, NotReady, Overloaded.
        """
        loaded = self._registry.get(model, version)
        try:
            loaded.batcher.check_capacity(count)
        except Overloaded:
            self._metrics.refused_requests.labels(loaded.model).inc()
            raise
        return loaded

    def context(self, model: str, version: str | None) -> RequestContext:
        """Begins a request: a context that all its work is done in. Raises UnknownModel, UnknownVersion, NotReady."""
        return RequestContext(self._registry.get(model, version), self._metrics, self._timeout_s)

    async def predict(self, context: RequestContext, image: bytes) -> Probabilities:
        """Probabilities, float32 (classes,), of one encoded image.

        Raises BadImage, UnsupportedImage, ImageTooLarge, Overloaded, DeadlineExceeded, ModelFailed.
        """
        loaded = context.loaded
        self._reserve(context, 1)
        try:
            pixels = await self._decode(image, context)
        except BaseException:
            loaded.batcher.release(1)
            raise
        context.timings.mark_decoded()
        row: Probabilities = (await self.answer(context, pixels[np.newaxis]))[0]
        return row

    async def predict_many(
        self, context: RequestContext, images: Sequence[bytes | ConvoyError]
    ) -> list[Probabilities | ConvoyError]:
        """The same for many images at once; an error about one image stands in that image's place, be it found
        here or given in place of the image.

        Raises TooManyImages, Overloaded, DeadlineExceeded, ModelFailed.
        """
        loaded = context.loaded
        self._reserve(context, len(images))
        decoded: list[NDArray[np.uint8] | ConvoyError] = []
        try:
            whose, pixel_budget = _fairness_key(context), PixelBudget(MAX_REQUEST_PIXELS_FACTOR * self._max_pixels)
            jobs = [
                self._decode_pool.run(whose, self._try_all, part, loaded, pixel_budget) for part in in_parts(images)
            ]
            parts = await context.within_deadline(asyncio.gather(*jobs))
            decoded = list(itertools.chain.from_iterable(parts))
        finally:
            good = [pixels for pixels in decoded if not isinstance(pixels, ConvoyError)]
            loaded.batcher.release(len(images) - len(good))
        context.timings.mark_decoded()
        rows = iter(await self.answer(context, np.stack(good)) if good else ())
        return [d if isinstance(d, ConvoyError) else next(rows) for d in decoded]

    async def infer(self, context: RequestContext, batch: NDArray[np.uint8]) -> Probabilities:
        """Probabilities, float32 (n, classes), of images that are the model's input already: uint8 (n, h, w, c).

        Raises TooManyImages, Overloaded, DeadlineExceeded, ModelFailed.
        """
        self._reserve(context, len(batch))
        return await self.answer(context, batch)

    async def infer_or_predict(
        self, context: RequestContext, tensor: NDArray[np.uint8] | None, images: Sequence[bytes] | None
    ) -> Probabilities:
        """Probabilities, float32 (n, classes), of either `tensor`, as for `infer`, or `images`, as for `predict_many`.

        An error of one image is raised, with the image's index. Raises what those raise.
        """
        if tensor is not None:
            context.timings.mark_decoded()
            return await self.infer(context, tensor)
        assert images is not None
        return _stack_or_raise(await self.predict_many(context, images))

    @contextmanager
    def reserve_slots(self, context: RequestContext, count: int) -> Iterator[None]:
        """Takes places for so many images that are still to be made; `answer` uses them up, an error gives them back.

        Raises TooManyImages, Overloaded.
        """
        self._reserve(context, count)
        try:
            yield
        except BaseException:
            context.loaded.batcher.release(count)
            raise

    async def answer(self, context: RequestContext, batch: NDArray[np.uint8]) -> Probabilities:
        """As `infer`, for images that have their places."""
        answer = await context.loaded.batcher.infer(batch, context.remaining_s(), context.background)
        context.timings.mark_computed(answer.queue_s, answer.compute_s, answer.batch_size)
        return answer.outputs

    async def decode(self, context: RequestContext, image: bytes) -> NDArray[np.uint8]:
        """One encoded image as the model's input, uint8 (h, w, c).

        Raises BadImage, UnsupportedImage, ImageTooLarge, DeadlineExceeded.
        """
        pixels = await self._decode(image, context)
        context.timings.mark_decoded()
        return pixels

    def refusal(self, loaded: LoadedVersion, message: str, retry_after_s: float) -> Overloaded:
        """The error of a request that is refused because others are at work; it is counted."""
        self._metrics.refused_requests.labels(loaded.model).inc()
        return Overloaded(message, retry_after_s)

    def _reserve(self, context: RequestContext, count: int) -> None:
        loaded = context.loaded
        try:
            loaded.batcher.reserve(count, context.remaining_s(), context.background)
        except Overloaded:
            self._metrics.refused_requests.labels(loaded.model).inc()
            raise

    async def _decode(self, encoded: bytes, context: RequestContext) -> NDArray[np.uint8]:
        if (simple := self._decode_simple_png(encoded, context.loaded)) is not None:
            return simple
        image = decode.open_image(encoded, self._max_pixels)
        if image.width * image.height <= MAX_INLINE_PIXELS and len(encoded) <= MAX_INLINE_BYTES:
            return _pixels(image, context.loaded)
        return await context.within_deadline(
            self._decode_pool.run(_fairness_key(context), self._pixels_in_turn, image, context.loaded)
        )

    def _decode_simple_png(self, encoded: bytes, loaded: LoadedVersion) -> NDArray[np.uint8] | None:
        pixels = decode_simple_png(encoded, loaded.manifest.input.channels, self._max_pixels)
        return None if pixels is None else preprocess(pixels, loaded.manifest.input, loaded.manifest.preprocessing)

    def _pixels_in_turn(self, image: Image.Image, loaded: LoadedVersion) -> NDArray[np.uint8]:
        with self._pixel_semaphore.acquire(decode_cost_pixels(image)):
            return _pixels(image, loaded)

    def _try_all(
        self, images: Sequence[bytes | ConvoyError], loaded: LoadedVersion, pixel_budget: PixelBudget
    ) -> list[NDArray[np.uint8] | ConvoyError]:
        return [self._try_decode(image, loaded, pixel_budget) for image in images]

    def _try_decode(
        self, encoded: bytes | ConvoyError, loaded: LoadedVersion, pixel_budget: PixelBudget
    ) -> NDArray[np.uint8] | ConvoyError:
        if isinstance(encoded, ConvoyError):
            return encoded
        if (simple := self._decode_simple_png(encoded, loaded)) is not None:
            return simple
        try:
            image = decode.open_image(encoded, self._max_pixels)
            if not pixel_budget.try_consume(decode_cost_pixels(image)):
                raise TooManyPixels(f"The request's images have more than {pixel_budget.pixels} pixels together.")
            return self._pixels_in_turn(image, loaded)
        except ConvoyError as error:
            return error


def in_parts(images: Sequence[bytes | ConvoyError]) -> Iterator[Sequence[bytes | ConvoyError]]:
    """The images in their order, as many at a time as one thread may decode before another model has its turn."""
    at = part_bytes = 0
    for end, image in enumerate(images):
        image_bytes = 0 if isinstance(image, ConvoyError) else len(image)
        if end > at and (end - at == MAX_PART_IMAGES or part_bytes + image_bytes > MAX_PART_BYTES):
            yield images[at:end]
            at, part_bytes = end, 0
        part_bytes += image_bytes
    yield images[at:]


def _stack_or_raise(rows: Sequence[Probabilities | ConvoyError]) -> Probabilities:
    """The rows as one tensor, float32 (n, classes). It has no place for an error: the first one is raised, numbered."""
    good: list[Probabilities] = []
    for at, row in enumerate(rows):
        if isinstance(row, ConvoyError):
            row.message = f"Image {at}: {row.message}"
            raise row
        good.append(row)
    return np.stack(good)


def _fairness_key(context: RequestContext) -> tuple[str, bool]:
    """Who takes turns at the decoders: each model, and what is urgent of it beside what is not."""
    return context.loaded.model, context.background


def _pixels(image: Image.Image, loaded: LoadedVersion) -> NDArray[np.uint8]:
    how = loaded.manifest.preprocessing
    pixels = decode.read_pixels(image, loaded.manifest.input.channels, how.background)
    return preprocess(pixels, loaded.manifest.input, how)
