"""Decodes images and runs them through a model's queue: the core of REST, batch jobs and the command line.

Knows no HTTP and no onnxruntime.
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
        self._decoder = ImageDecoder(decode_pool, metrics, limits)
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
        with self.reserve_slots(context, len(images)):
            decoded = await self._decoder.decode_many(context, images)
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
            reason = context.rejection_reason(error)
            self._metrics.count_rejection(reason, context.loaded.model, background=context.background)
            raise
        context.timings.mark_computed(result.queue_s, result.compute_s, result.batch_size)
        return result

    async def decode(self, context: RequestContext, image: bytes) -> NDArray[np.uint8]:
        """Decodes one image to the model's input, uint8 (h, w, c).

        Raises BadImage, UnsupportedImage, ImageTooLarge, DeadlineExceeded.
        """
        pixels = await self._decoder.decode(context, image)
        context.timings.mark_decoded()
        return pixels

    def queue_full_error(self, context: RequestContext, message: str, retry_after_s: float) -> QueueFull:
        """Counts a request as rejected because of others, and returns its error."""
        self._metrics.count_rejection(QueueFull.code, context.loaded.model, background=context.background)
        return QueueFull(message, retry_after_s)

    def _reserve(self, context: RequestContext, count: int) -> None:
        loaded = context.loaded
        context.image_count = count
        try:
            loaded.batcher.reserve(count, context.remaining_s(), context.background)
        except REJECTIONS as error:
            self._metrics.count_rejection(error.code, loaded.model, background=context.background)
            raise


def _stack_small(inputs: list[NDArray[np.uint8]]) -> Images:
    """Joins small images to one array, as which they run faster. Large ones are joined beside the event loop."""
    is_small = inputs and len(inputs) * inputs[0].nbytes <= MAX_INLINE_STACK_BYTES
    return np.stack(inputs) if is_small else inputs


def _of_image(index: int, error: BaseException) -> BaseException:
    """Names the image in the error's message."""
    if isinstance(error, ConvoyError):
        error.message = f"Image {index}: {error.message}"
    return error
