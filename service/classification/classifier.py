"""Decodes images and runs them through a model's queue: the core of REST, batch jobs and the command line. Independent
of HTTP and onnxruntime.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from service.classification.image_decoder import ImageDecoder
from service.classification.request_context import RequestContext
from service.classification.top_k import Probabilities
from service.errors import REJECTIONS, ConvoyError, QueueFull
from service.imaging.decode_pool import DecodePool
from service.imaging.limits import DecodeLimits
from service.inference.batch import Images, InferenceResult
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Registry
from service.observability.metrics import Metrics

# Images within this limit are joined on the event loop, in about 0.1 ms.
MAX_INLINE_STACK_BYTES = 1 << 20


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
        self._decoder = ImageDecoder(decode_pool, limits)
        self._timeout_s = request_timeout_s

    def admit(self, model: str, version: str | None, count: int = 1, *, background: bool = False) -> LoadedVersion:
        """Returns the version for a request of about `count` images, if its queue has capacity for them.

        Called before any work for the request. A rejection is counted as one of background work if `background` is set.
        Raises UnknownModel, UnknownVersion, NotReady, Overloaded or
        DeadlineTooShort.
        """
        loaded = self._registry.get(model, version)
        try:
            loaded.batcher.check_capacity(count, self._timeout_s)
        except REJECTIONS as error:
            self._metrics.count_rejection(error.code, loaded.model, background=background)
            raise
        return loaded

    def context(self, model: str, version: str | None) -> RequestContext:
        """Returns the context of a new request. Raises UnknownModel, UnknownVersion or NotReady."""
        return RequestContext(self._registry.get(model, version), self._metrics, self._timeout_s)

    async def predict(self, context: RequestContext, image: bytes) -> Probabilities:
        """Returns probabilities, float32 (classes,), for one encoded image.

        Raises BadImage, UnsupportedImage, ImageTooLarge, Overloaded, DeadlineExceeded or ModelFailed.
        """
        loaded = context.loaded
        self._reserve(context, 1)
        try:
            pixels = await self._decoder.decode(context, image)
        except BaseException:
            loaded.batcher.release(1)
            raise
        context.timings.mark_decoded()
        row: Probabilities = (await self.infer_reserved(context, pixels[np.newaxis]))[0]
        return row

    async def predict_many(
        self, context: RequestContext, images: Sequence[bytes | ConvoyError]
    ) -> list[Probabilities | ConvoyError]:
        """Does the same as `predict` for many images, and returns the error of an image in the place of its result.

        `images` may contain errors, which are returned unchanged. Raises TooManyImages, Overloaded, DeadlineExceeded
        or ModelFailed.
        """
        decoded, inputs = await self._decode_many(context, images)
        context.loaded.batcher.release(len(images) - len(inputs))
        rows = iter(await self._infer_each(context, inputs) if len(inputs) else ())
        return [d if isinstance(d, ConvoyError) else next(rows) for d in decoded]

    async def _decode_many(
        self, context: RequestContext, images: Sequence[bytes | ConvoyError]
    ) -> tuple[list[NDArray[np.uint8] | ConvoyError], Images]:
        """Reserves a slot for each image, and decodes the images.

        Returns the model's input, uint8 (h, w, c), or the error of each image, and all inputs together for the queue.
        """
        with self.reserve_slots(context, len(images)):
            decoded = await self._decoder.decode_many(context, images)
            inputs = _stack_small([pixels for pixels in decoded if not isinstance(pixels, ConvoyError)])
        context.timings.mark_decoded()
        return decoded, inputs

    async def infer(self, context: RequestContext, batch: NDArray[np.uint8]) -> Probabilities:
        """Returns probabilities, float32 (n, classes), for preprocessed images, uint8 (n, h, w, c).

        Raises TooManyImages, Overloaded, DeadlineExceeded or ModelFailed.
        """
        self._reserve(context, len(batch))
        return await self.infer_reserved(context, batch)

    async def infer_or_predict(
        self, context: RequestContext, tensor: NDArray[np.uint8] | None, images: Sequence[bytes] | None
    ) -> Probabilities:
        """Returns probabilities, float32 (n, classes), for `tensor` (as in `infer`) or else for the encoded `images`.

        The first error of an image is raised, with the image's index. If an image cannot be decoded, no image is run.
        Raises the errors of `infer` and of `predict`.
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
        """Reserves queue slots for images that do not exist yet. `infer_reserved` uses them; an error releases them.

        Raises TooManyImages or Overloaded.
        """
        self._reserve(context, count)
        try:
            yield
        except BaseException:
            context.loaded.batcher.release(count)
            raise

    async def infer_reserved(self, context: RequestContext, batch: Images) -> Probabilities:
        """Does the same as `infer` for images whose queue slots are reserved. Raises the first error of an image."""
        result = await self._infer(context, batch)
        if result.errors:
            number = min(result.errors)
            raise _of_image(number, result.errors[number]) if len(batch) > 1 else result.errors[number]
        return result.outputs

    async def _infer_each(self, context: RequestContext, batch: Images) -> list[Probabilities | ConvoyError]:
        """Does the same as `infer_reserved`, but returns the error of an image in the place of its result."""
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
            context.count_rejection(error)
            raise
        context.timings.mark_computed(result.queue_s, result.compute_s, result.batch_size)
        return result

    async def decode(self, context: RequestContext, image: bytes) -> NDArray[np.uint8]:
        """Decodes one image to the model's input, uint8 (h, w, c).

        Raises BadImage, UnsupportedImage, ImageTooLarge or DeadlineExceeded.
        """
        pixels = await self._decoder.decode(context, image)
        context.timings.mark_decoded()
        return pixels

    def queue_full_error(self, context: RequestContext, message: str, retry_after_s: float) -> QueueFull:
        """Counts a request that is rejected because of other requests, and returns its error."""
        error = QueueFull(message, retry_after_s)
        context.count_rejection(error)
        return error

    def _reserve(self, context: RequestContext, count: int) -> None:
        context.image_count = count
        try:
            context.loaded.batcher.reserve(count, context.remaining_s(), context.background)
        except REJECTIONS as error:
            context.count_rejection(error)
            raise


def _stack_small(inputs: list[NDArray[np.uint8]]) -> Images:
    """Joins small images to one array, because that runs faster. Large images are joined outside the event loop."""
    is_small = inputs and len(inputs) * inputs[0].nbytes <= MAX_INLINE_STACK_BYTES
    return np.stack(inputs) if is_small else inputs


def _of_image(index: int, error: BaseException) -> BaseException:
    """Adds the index of the image to the error's message."""
    if isinstance(error, ConvoyError):
        error.message = f"Image {index}: {error.message}"
    return error
