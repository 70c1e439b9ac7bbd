"""Decodes the images of requests to model inputs, on the threads of a DecodePool and within limits on memory.
Independent of model queues and HTTP.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.classification.request_context import RequestContext
from service.errors import REJECTIONS, ConvoyError, DeadlineExceeded, ExpiredInQueue, TooManyPixels
from service.fair_threads import Owner
from service.imaging.decode import OpenedImage
from service.imaging.decode_pool import LARGE_WORK, DecodePool
from service.imaging.fast_png import decode_simple_png
from service.imaging.limits import DecodeLimits
from service.imaging.model_input import open_for_model, read_opened
from service.imaging.pixel_budget import DecodeMemory, PixelBudget
from service.imaging.png_texts import is_slow_to_open
from service.imaging.preprocess import preprocess
from service.loaded_models.loaded_version import LoadedVersion

# An image within both limits is decoded on the event loop, because that takes less time than a switch to a thread.
MAX_INLINE_PIXELS = 64 * 64
MAX_INLINE_BYTES = 65536
# Tiny images are decoded in chunks, because a switch to a thread and back costs as much as decoding one of them.
MAX_CHUNK_IMAGES = 16
MAX_CHUNK_BYTES = 16384
# Estimated work of an image that has not been opened, in addition to its bytes. A much larger image is decoded by a
# separate job anyway.
UNOPENED_WORK = MAX_INLINE_PIXELS
# Additional work of opening a PNG whose texts are unpacked: about 2 ms.
UNPACKED_TEXT_WORK = 200_000
# The images of a request may have this many times the maximum pixels of one image. Without a limit, 16 MB of images
# could take minutes of CPU time.
MAX_REQUEST_PIXELS_FACTOR = 2

T = TypeVar("T")
Pixels = NDArray[np.uint8]
"""A model's input: (height, width, channels)."""


@dataclass(frozen=True, slots=True)
class PostponedImage:
    """An image whose header was read, and that a separate job will decode. `work` is its estimated work."""

    encoded: bytes
    work: int


class ImageDecoder:
    """Decodes one image, or all images of one request."""

    def __init__(self, decode_pool: DecodePool, limits: DecodeLimits) -> None:
        self._decode_pool = decode_pool
        self._limits = limits
        self._memory = DecodeMemory(limits.max_decoded_bytes)

    async def decode(self, context: RequestContext, encoded: bytes) -> Pixels:
        """Decodes one image. Raises BadImage, UnsupportedImage, ImageTooLarge, TooLateToStart or ExpiredInQueue."""
        if (pixels := self._decode_simple_png(encoded, context.loaded)) is not None:
            return pixels
        if len(encoded) > MAX_INLINE_BYTES or is_slow_to_open(encoded):
            return _raise_error(*await self.decode_many(context, [encoded]))
        image = self._open(encoded, context.loaded)
        if image.full_size[0] * image.full_size[1] <= MAX_INLINE_PIXELS:
            return _to_model_input(image, context.loaded)
        work = _work(image, encoded)
        if work > LARGE_WORK:  # closed until it is decoded, because the decoder of a WebP keeps a canvas in memory
            image.image.close()
            return _raise_error(*await self._decode_postponed(context, [PostponedImage(encoded, work)]))
        self._check_in_time(context, [work])
        read = self._decode_pool.run(_owner(context), work, self._read_limited, image, work, context.loaded)
        return await self._decoded(context, read)

    async def decode_many(
        self, context: RequestContext, images: Sequence[bytes | ConvoyError]
    ) -> list[Pixels | ConvoyError]:
        """Decodes many images, and returns the error of an image in the place of its pixels.

        Raises TooLateToStart or ExpiredInQueue.
        """
        # Small images are decoded in the same chunk in which they are opened, larger images by separate jobs.
        owner, pixel_budget = _owner(context), PixelBudget(MAX_REQUEST_PIXELS_FACTOR * self._limits.max_pixels)
        parts = list(split_into_chunks(images))
        self._check_in_time(context, [max(map(_unopened_work, parts))])  # small images are not checked later
        opening = [
            self._decode_pool.run(owner, _unopened_work(chunk), self._decode_chunk, chunk, context.loaded, pixel_budget)
            for chunk in parts
        ]
        chunks = await self._decoded(context, asyncio.gather(*opening))
        opened = list(itertools.chain.from_iterable(chunks))
        postponed = [image for image in opened if isinstance(image, PostponedImage)]
        rest = iter(await self._decode_postponed(context, postponed) if postponed else ())
        return [next(rest) if isinstance(image, PostponedImage) else image for image in opened]

    async def _decode_postponed(
        self, context: RequestContext, images: Sequence[PostponedImage]
    ) -> list[Pixels | ConvoyError]:
        self._check_in_time(context, [image.work for image in images])
        reading = [
            self._decode_pool.run(_owner(context), image.work, self._open_and_read, image, context.loaded)
            for image in images
        ]
        return await self._decoded(context, asyncio.gather(*reading))

    def _check_in_time(self, context: RequestContext, works: Sequence[int]) -> None:
        """Raises TooLateToStart or DeadlineTooShort if the images of the request would not be decoded before its
        deadline. `works` is the work of each job."""
        context.decode_alone_s = max(context.decode_alone_s, self._decode_pool.alone_s(works))
        try:
            self._decode_pool.check_in_time(_owner(context), sum(works), context.remaining_s())
        except REJECTIONS as error:
            context.count_rejection(error)
            raise

    async def _decoded(self, context: RequestContext, work: asyncio.Future[T]) -> T:
        """Waits until images are decoded. Raises ExpiredInQueue at the request's deadline, because they hold slots of
        the queue."""
        try:
            return await context.within_deadline(work)
        except DeadlineExceeded:
            error = ExpiredInQueue("The images were not decoded within the request's time limit.")
            context.count_rejection(error)
            raise error from None

    def _decode_simple_png(self, encoded: bytes, loaded: LoadedVersion) -> Pixels | None:
        pixels = decode_simple_png(encoded, loaded.manifest.input.channels, self._limits.max_pixels)
        return None if pixels is None else preprocess(pixels, loaded.manifest.input, loaded.manifest.preprocessing)

    def _open(self, encoded: bytes, loaded: LoadedVersion) -> OpenedImage:
        return open_for_model(encoded, loaded.manifest.input, loaded.manifest.preprocessing, self._limits)

    def _read_limited(self, image: OpenedImage, work: int, loaded: LoadedVersion) -> Pixels:
        with self._memory.acquire(image.cost.memory_bytes, is_large=work > LARGE_WORK):
            return _to_model_input(image, loaded)

    def _open_and_read(self, postponed: PostponedImage, loaded: LoadedVersion) -> Pixels | ConvoyError:
        try:
            return self._read_limited(self._open(postponed.encoded, loaded), postponed.work, loaded)
        except ConvoyError as error:
            return error.without_frames()

    def _decode_chunk(
        self, images: Sequence[bytes | ConvoyError], loaded: LoadedVersion, pixel_budget: PixelBudget
    ) -> list[Pixels | PostponedImage | ConvoyError]:
        """Opens the images in order, and decodes them as long as their total work is at most LARGE_WORK."""
        results, work = list[Pixels | PostponedImage | ConvoyError](), 0
        for encoded in images:
            if isinstance(encoded, ConvoyError):
                results.append(encoded)
            elif (pixels := self._decode_simple_png(encoded, loaded)) is not None:
                results.append(pixels)
            else:
                try:
                    image = self._open_within_budget(encoded, loaded, pixel_budget)
                    image_work = _work(image, encoded)
                    if work + image_work > LARGE_WORK:
                        image.image.close()
                        results.append(PostponedImage(encoded, image_work))
                    else:
                        work += image_work
                        results.append(self._read_limited(image, image_work, loaded))
                except ConvoyError as error:
                    results.append(error.without_frames())
        return results

    def _open_within_budget(self, encoded: bytes, loaded: LoadedVersion, pixel_budget: PixelBudget) -> OpenedImage:
        image = self._open(encoded, loaded)
        if not pixel_budget.try_consume(image.cost.time_pixels):
            raise TooManyPixels(f"The request's images have more than {pixel_budget.pixels} pixels together.")
        return image


def split_into_chunks(images: Sequence[bytes | ConvoyError]) -> Iterator[Sequence[bytes | ConvoyError]]:
    """Yields the images in order, in chunks. One thread decodes a chunk before it continues with another owner."""
    start = chunk_bytes = 0
    for end, image in enumerate(images):
        image_bytes = 0 if isinstance(image, ConvoyError) else len(image)
        if end > start and (end - start == MAX_CHUNK_IMAGES or chunk_bytes + image_bytes > MAX_CHUNK_BYTES):
            yield images[start:end]
            start, chunk_bytes = end, 0
        chunk_bytes += image_bytes
    yield images[start:]


def _unopened_work(images: Sequence[bytes | ConvoyError]) -> int:
    return sum(
        UNOPENED_WORK + len(image) + (UNPACKED_TEXT_WORK if is_slow_to_open(image) else 0)
        for image in images
        if not isinstance(image, ConvoyError)
    )


def _work(image: OpenedImage, encoded: bytes) -> int:
    """Returns the estimated work of decoding: 1 per pixel of `time_pixels` and 1 per encoded byte."""
    return image.cost.time_pixels + len(encoded)


def _raise_error(result: Pixels | ConvoyError) -> Pixels:
    if isinstance(result, ConvoyError):
        raise result
    return result


def _owner(context: RequestContext) -> Owner:
    """Returns the owner of a job. Threads alternate between clients, and between the models and the interactive and
    background requests of a client."""
    return Owner(context.client, (context.loaded.model, context.background))


def _to_model_input(image: OpenedImage, loaded: LoadedVersion) -> Pixels:
    return read_opened(image, loaded.manifest.input, loaded.manifest.preprocessing)
