"""Queued requests, the batches that are formed from them, and the distribution of a batch's outputs to its requests."""

import asyncio
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import DeadlineExceeded, ExpiredInQueue, ModelFailed

Array = NDArray[Any]
Images = Array | list[Array]
"""Images of one shape: an array (n, ...), or a list of n arrays, which are joined when their batch runs."""
Errors = Mapping[int, BaseException]
NO_ERRORS: Errors = MappingProxyType({})


class InvalidRows(ModelFailed):
    """The rows `invalid` of a run's `outputs`, float (n, ...), are not finite. The other rows can be used."""

    def __init__(self, outputs: Array) -> None:
        self.outputs = outputs
        self.invalid: list[int] = np.unique(np.nonzero(~np.isfinite(outputs))[0]).tolist()
        count = f"{len(self.invalid)} of {len(outputs)}"
        super().__init__(f"The model answered {count} images with values that are not finite.")

    def errors(self) -> Errors:
        """Returns an error for each invalid row, by the index of the row."""
        message = "The model's output for the image is not finite."
        return {row: ModelFailed(message) for row in self.invalid}


class InferenceResult(NamedTuple):
    """The result of one request, with the size of its last batch, and its seconds in the queue and in runs.

    `outputs` has one row per image, in order, without the images that failed. `errors` has the errors of the failed
    images, by the index of the image.
    """

    outputs: Array
    batch_size: int
    queue_s: float
    compute_s: float
    errors: Errors = NO_ERRORS


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request in the queue. `batched` of its images have been put into batches, and `completed` of its images have
    run.

    `queued_s`, `due_s` and `started_s` are times of the batcher's clock: when the request arrived, when it must be
    done, and when its first batch was formed. `outputs` holds one array per batch, with the index of its first image,
    because with several instances a later batch may be done first.
    """

    images: Images
    future: asyncio.Future[InferenceResult]
    queued_s: float
    due_s: float = float("inf")
    batched: int = 0
    completed: int = 0
    started_s: float = 0.0
    compute_s: float = 0.0
    outputs: list[tuple[int, Array]] = field(default_factory=list)
    errors: dict[int, BaseException] = field(default_factory=dict)
    background: bool = False

    def fail(self, error: BaseException) -> None:
        """Fails the request, if it still waits, with a copy of the error, because raising an error changes its
        traceback."""
        if not self.future.done():
            self.future.set_exception(_copy(error))

    def expiry_error(self) -> DeadlineExceeded:
        """Returns the error of the request if it ends now because of its deadline."""
        if self.batched:
            return DeadlineExceeded("The model did not finish within the request's time limit.")
        return ExpiredInQueue("The request waited for the model until its time limit was too short for a run.")

    def complete(self, count: int, batch_size: int, compute_s: float) -> None:
        """Marks `count` images as run, and sets the result after the last one."""
        self.completed += count
        self.compute_s += compute_s
        if self.completed == len(self.images) and not self.future.done():
            queue_s = self.started_s - self.queued_s
            result = InferenceResult(self._rows(), batch_size, queue_s, self.compute_s, self.errors)
            self.future.set_result(result)

    def _rows(self) -> Array:
        if len(self.outputs) == 1:
            return self.outputs[0][1]
        parts = [rows for _, rows in sorted(self.outputs, key=lambda part: part[0])]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


class BatchSlice(NamedTuple):
    """The images of one request that are in one batch. `start` is the index of the first of these images in its
    request."""

    request: QueuedRequest
    images: Images
    start: int = 0


@dataclass(slots=True, eq=False)
class Batch:
    """Slices that run together. `started_s` is the run's start by the batcher's clock, `expected_s` its duration."""

    slices: list[BatchSlice]
    started_s: float
    expected_s: float

    @property
    def size(self) -> int:
        """Number of images."""
        return sum(len(part.images) for part in self.slices)

    def join_images(self) -> Array:
        """Returns the images of all slices as one array (size, ...). Copies the images, unless they are one array."""
        parts = [part.images for part in self.slices]
        arrays = [part for part in parts if isinstance(part, np.ndarray)]
        if len(arrays) < len(parts):
            return np.stack([image for part in parts for image in part])
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def fail(self, error: BaseException) -> None:
        """Fails every request that still waits."""
        for request, _, _ in self.slices:
            request.fail(error)

    def complete(self, outputs: Array, compute_s: float, errors: Errors = NO_ERRORS) -> None:
        """Distributes the outputs to the requests: an array (size, ...) with one row per image, in the order of slices.

        `errors` has the errors of single images by row. These rows of the outputs are dropped.
        """
        position = 0
        for request, images, start in self.slices:
            count = len(images)
            rows = outputs[position : position + count]
            if errors:
                own_errors = {row - position: errors[row] for row in range(position, position + count) if row in errors}
                request.errors.update((start + row, error) for row, error in own_errors.items())
                rows = np.delete(rows, list(own_errors), axis=0)
            request.outputs.append((start, rows))
            position += count
            request.complete(count, len(outputs), compute_s)

    def fail_images(self, error: BaseException, compute_s: float) -> None:
        """Records the error for every image of the batch. Its requests still get the results of their other images."""
        for request, images, start in self.slices:
            request.errors.update((start + row, _copy(error)) for row in range(len(images)))
            request.complete(len(images), len(images), compute_s)

    def single_images(self) -> Iterator[BatchSlice]:
        """Yields a slice for each image."""
        for request, images, start in self.slices:
            for number in range(len(images)):
                yield BatchSlice(request, images[number : number + 1], start + number)


def _copy(error: BaseException) -> BaseException:
    """Returns a copy of the error without its traceback, and with the same cause; the error itself if copying fails."""
    try:
        duplicate = copy.copy(error)
    except Exception:  # copying calls the class with `args`, which its constructor may not accept
        return error
    duplicate.__cause__ = error.__cause__
    return duplicate.with_traceback(None)
