"""Decodes images and runs them through a model's queue: the core of REST, batch jobs and the command line.

Knows no HTTP and no onnxruntime.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.classification.request_context import RequestContext
from service.classification.top_k import Probabilities
from service.errors import REJECTIONS, ConvoyError, DeadlineExceeded, ExpiredInQueue, QueueFull, TooManyPixels
from service.imaging.decode import OpenedImage
from service.imaging.decode_pool import DecodePool
from service.imaging.fast_png import decode_simple_png
from service.imaging.limits import DecodeLimits
from service.imaging.model_input import open_for_model, read_opened
from service.imaging.pixel_budget import MemorySemaphore, PixelBudget
from service.imaging.preprocess import preprocess
from service.inference.batch import Images, InferenceResult
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Registry
from service.observability.metrics import Metrics

# An image within both limits is decoded on the event loop, in less time than a switch to a thread takes.
MAX_INLINE_PIXELS = 64 * 64
MAX_INLINE_BYTES = 65536
# Tiny images are decoded in chunks: a switch to a thread and back costs as much as decoding one.
MAX_CHUNK_IMAGES = 16
MAX_CHUNK_BYTES = 16384
# A request may have this many times the maximum pixels of one image: 16 MB of images could cost minutes of a core.
MAX_REQUEST_PIXELS_FACTOR = 2

# Images within this limit are joined on the event loop, in about 0.1 ms.
MAX_INLINE_STACK_BYTES = 1 << 20

T = TypeVar("T")


class Classifier:
    """Decodes images, queues them for a model, and returns its outputs."""

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        decode_pool: DecodePool,
        *,
        limits: DecodeLimits,
        request_timeout_s: float,
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._decode_pool = decode_pool
        self._limits = limits
        self._decode_memory = MemorySemaphore(limits.max_decoded_bytes)
        self._timeout_s = request_timeout_s

    def admit(self, model: str, version: str | None, count: int = 1) -> LoadedVersion:
        """Returns the version that would answer a request of about `count` images, if its queue has capacity for them.

        Called before any work on the request. Raises UnknownModel, UnknownVersion, NotReady, Overloaded,
        DeadlineTooShort.
        """
        loaded = self._registry.get(model, version)
        try:
            loaded.batcher.check_capacity(count, self._timeout_s)
        except REJECTIONS as error:
            self._metrics.count_rejection(error.code, loaded.model)
            raise
        return loaded

    def context(self, model: str, version: str | None) -> RequestContext:
        """Returns the context for the work of a new request. Raises UnknownModel, UnknownVersion, NotReady."""
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
        row: Probabilities = (await self.infer_reserved(context, pixels[np.newaxis]))[0]
        return row

    async def predict_many(
        self, context: RequestContext, images: Sequence[bytes | ConvoyError]
    ) -> list[Probabilities | ConvoyError]:
        """The same for many images. The error of an image is returned in its place; an error given as an image stays.

        Raises TooManyImages, Overloaded, DeadlineExceeded, ModelFailed.
        """
        decoded, inputs = await self._decode_many(context, images)
        context.loaded.batcher.release(len(images) - len(inputs))
        rows = iter(await self._infer_each(context, inputs) if len(inputs) else ())
        return [d if isinstance(d, ConvoyError) else next(rows) for d in decoded]

    async def _decode_many(
        self, context: RequestContext, images: Sequence[bytes | ConvoyError]
    ) -> tuple[list[NDArray[np.uint8] | ConvoyError], Images]:
        """Reserves a slot for each image. Returns each as the model's input, uint8 (h, w, c), or its error, and the
        inputs as the queue takes them."""
        loaded = context.loaded
        with self.reserve_slots(context, len(images)):
            key, pixel_budget = _fairness_key(context), PixelBudget(MAX_REQUEST_PIXELS_FACTOR * self._limits.max_pixels)
            decoding = [
                self._decode_pool.run(key, self._try_decode_all, chunk, loaded, pixel_budget)
                for chunk in split_into_chunks(images)
            ]
            with _decoding(loaded, len(images)):
                chunks = await self._decoded(context, asyncio.gather(*decoding))
            decoded = list(itertools.chain.from_iterable(chunks))
            inputs = _stack_small([pixels for pixels in decoded if not isinstance(pixels, ConvoyError)])
        context.timings.mark_decoded()
        return decoded, inputs

    async def infer(self, context: RequestContext, batch: NDArray[np.uint8]) -> Probabilities:
        """Probabilities, float32 (n, classes), of images that are the model's input already: uint8 (n, h, w, c).

        Raises TooManyImages, Overloaded, DeadlineExceeded, ModelFailed.
        """
        self._reserve(context, len(batch))
        return await self.infer_reserved(context, batch)

    async def infer_or_predict(
        self, context: RequestContext, tensor: NDArray[np.uint8] | None, images: Sequence[bytes] | None
    ) -> Probabilities:
        """Probabilities, float32 (n, classes), of either `tensor`, as for `infer`, or `images`, as for `predict_many`.

        An error of one image is raised, with the image's index; if one cannot be decoded, none is run. Raises what
        those raise.
        """
        if tensor is not None:
            context.timings.mark_decoded()
            return await self.infer(context, tensor)
        assert images is not None
        decoded, inputs = await self._decode_many(context, images)
        if len(inputs) < len(decoded):
            context.loaded.batcher.release(len(decoded))
            raise next(_of_image(i, error) for i, error in enumerate(decoded) if isinstance(error, ConvoyError))
        return await self.infer_reserved(context, inputs)

    @contextmanager
    def reserve_slots(self, context: RequestContext, count: int) -> Iterator[None]:
        """Reserves queue slots for images that do not exist yet; `infer_reserved` uses them, an error releases them.

        Raises TooManyImages, Overloaded.
        """
        self._reserve(context, count)
        try:
            yield
        except BaseException:
            context.loaded.batcher.release(count)
            raise

    async def infer_reserved(self, context: RequestContext, batch: Images) -> Probabilities:
        """As `infer`, for images whose queue slots are reserved. Raises the error of the first image that failed."""
        result = await self._infer(context, batch)
        if result.errors:
            number = min(result.errors)
            raise _of_image(number, result.errors[number]) if len(batch) > 1 else result.errors[number]
        return result.outputs

    async def _infer_each(self, context: RequestContext, batch: Images) -> list[Probabilities | ConvoyError]:
        """As `infer_reserved`, with the errors of images in their places."""
        result = await self._infer(context, batch)
        rows, results = iter(result.outputs), list[Probabilities | ConvoyError]()
        for number in range(len(batch)):
            error = result.errors.get(number)
            if error is not None and not isinstance(error, ConvoyError):
                raise error
            results.append(next(rows) if error is None else error)
        return results

    async def _infer(self, context: RequestContext, batch: Images) -> InferenceResult:
        try:
            result = await context.loaded.batcher.infer(batch, context.remaining_s(), context.background)
        except REJECTIONS as error:
            self._metrics.count_rejection(error.code, context.loaded.model)
            raise
        context.timings.mark_computed(result.queue_s, result.compute_s, result.batch_size)
        return result

    async def decode(self, context: RequestContext, image: bytes) -> NDArray[np.uint8]:
        """Decodes one image to the model's input, uint8 (h, w, c).

        Raises BadImage, UnsupportedImage, ImageTooLarge, DeadlineExceeded.
        """
        pixels = await self._decode(image, context)
        context.timings.mark_decoded()
        return pixels

    def queue_full_error(self, loaded: LoadedVersion, message: str, retry_after_s: float) -> QueueFull:
        """Counts a request as rejected because of others, and returns its error."""
        self._metrics.count_rejection(QueueFull.code, loaded.model)
        return QueueFull(message, retry_after_s)

    def _reserve(self, context: RequestContext, count: int) -> None:
        loaded = context.loaded
        try:
            loaded.batcher.reserve(count, context.remaining_s(), context.background)
        except REJECTIONS as error:
            self._metrics.count_rejection(error.code, loaded.model)
            raise

    async def _decode(self, encoded: bytes, context: RequestContext) -> NDArray[np.uint8]:
        if (pixels := self._decode_simple_png(encoded, context.loaded)) is not None:
            return pixels
        if len(encoded) > MAX_INLINE_BYTES:  # even its header may take milliseconds
            return await self._decode_in_pool(context, self._open_and_read, encoded, context.loaded)
        image = self._open(encoded, context.loaded)
        if image.full_size[0] * image.full_size[1] <= MAX_INLINE_PIXELS:
            return _to_model_input(image, context.loaded)
        return await self._decode_in_pool(context, self._read_limited, image, context.loaded)

    async def _decode_in_pool(
        self, context: RequestContext, function: Callable[..., NDArray[np.uint8]], *args: Any
    ) -> NDArray[np.uint8]:
        with _decoding(context.loaded, 1):
            return await self._decoded(context, self._decode_pool.run(_fairness_key(context), function, *args))

    async def _decoded(self, context: RequestContext, work: asyncio.Future[T]) -> T:
        """Waits for images that hold slots of the queue. Raises ExpiredInQueue at the request's deadline."""
        try:
            return await context.within_deadline(work)
        except DeadlineExceeded:
            self._metrics.count_rejection(ExpiredInQueue.code, context.loaded.model)
            raise ExpiredInQueue("The images were not decoded within the request's time limit.") from None

    def _decode_simple_png(self, encoded: bytes, loaded: LoadedVersion) -> NDArray[np.uint8] | None:
        pixels = decode_simple_png(encoded, loaded.manifest.input.channels, self._limits.max_pixels)
        return None if pixels is None else preprocess(pixels, loaded.manifest.input, loaded.manifest.preprocessing)

    def _open_and_read(self, encoded: bytes, loaded: LoadedVersion) -> NDArray[np.uint8]:
        return self._read_limited(self._open(encoded, loaded), loaded)

    def _open(self, encoded: bytes, loaded: LoadedVersion) -> OpenedImage:
        return open_for_model(encoded, loaded.manifest.input, loaded.manifest.preprocessing, self._limits)

    def _read_limited(self, image: OpenedImage, loaded: LoadedVersion) -> NDArray[np.uint8]:
        with self._decode_memory.acquire(image.cost.memory_bytes):
            return _to_model_input(image, loaded)

    def _try_decode_all(
        self, images: Sequence[bytes | ConvoyError], loaded: LoadedVersion, pixel_budget: PixelBudget
    ) -> list[NDArray[np.uint8] | ConvoyError]:
        return [self._try_decode(image, loaded, pixel_budget) for image in images]

    def _try_decode(
        self, encoded: bytes | ConvoyError, loaded: LoadedVersion, pixel_budget: PixelBudget
    ) -> NDArray[np.uint8] | ConvoyError:
        if isinstance(encoded, ConvoyError):
            return encoded
        if (pixels := self._decode_simple_png(encoded, loaded)) is not None:
            return pixels
        try:
            image = self._open(encoded, loaded)
            if not pixel_budget.try_consume(image.cost.time_pixels):
                raise TooManyPixels(f"The request's images have more than {pixel_budget.pixels} pixels together.")
            return self._read_limited(image, loaded)
        except ConvoyError as error:
            return error


def split_into_chunks(images: Sequence[bytes | ConvoyError]) -> Iterator[Sequence[bytes | ConvoyError]]:
    """Yields the images in order, in chunks that one thread decodes before the images of another model have a turn."""
    start = chunk_bytes = 0
    for end, image in enumerate(images):
        image_bytes = 0 if isinstance(image, ConvoyError) else len(image)
        if end > start and (end - start == MAX_CHUNK_IMAGES or chunk_bytes + image_bytes > MAX_CHUNK_BYTES):
            yield images[start:end]
            start, chunk_bytes = end, 0
        chunk_bytes += image_bytes
    yield images[start:]


@contextmanager
def _decoding(loaded: LoadedVersion, count: int) -> Iterator[None]:
    """Reports to admission control how long images take until they are decoded, waiting for a thread included."""
    admission = loaded.batcher.admission
    started_s = time.perf_counter()
    backlog = admission.start_decoding(count)
    try:
        yield
    finally:
        admission.end_decoding(count, backlog, time.perf_counter() - started_s)


def _stack_small(inputs: list[NDArray[np.uint8]]) -> Images:
    """Joins small images to one array, as which they run faster. Large ones are joined beside the event loop."""
    is_small = inputs and len(inputs) * inputs[0].nbytes <= MAX_INLINE_STACK_BYTES
    return np.stack(inputs) if is_small else inputs


def _of_image(index: int, error: BaseException) -> BaseException:
    """Names the image in the error's message."""
    if isinstance(error, ConvoyError):
        error.message = f"Image {index}: {error.message}"
    return error


def _fairness_key(context: RequestContext) -> tuple[str, bool]:
    """Decoders take turns between models, and between urgent and background work of each."""
    return context.loaded.model, context.background


def _to_model_input(image: OpenedImage, loaded: LoadedVersion) -> NDArray[np.uint8]:
    return read_opened(image, loaded.manifest.input, loaded.manifest.preprocessing)
