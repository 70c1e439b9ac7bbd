"""The requests in a queue, the parts of them that run together, and the distribution of the outputs to the requests."""

import asyncio
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import ModelFailed

Array = NDArray[Any]
Images = Array | list[Array]
"""Images of one shape: an array (n, ...), or a list of n arrays, which are joined only when they run."""
Errors = Mapping[int, BaseException]
NO_ERRORS: Errors = MappingProxyType({})


class InvalidRows(ModelFailed):
    """Some rows of a run's `outputs`, float (n, ...), are not finite: those in `invalid`. The others can be used."""

    def __init__(self, outputs: Array) -> None:
        self.outputs = outputs
        self.invalid: list[int] = np.unique(np.nonzero(~np.isfinite(outputs))[0]).tolist()
        count = f"{len(self.invalid)} of {len(outputs)}"
        super().__init__(f"The model answered {count} images with values that are not finite.")

    def errors(self) -> Errors:
        """An error for each invalid row, by its index."""
        message = "The model answered the image with values that are not finite."
        return {row: ModelFailed(message) for row in self.invalid}


class InferenceResult(NamedTuple):
    """The result of one request, and the batch size and times that it saw.

    `outputs` are the rows of its images in order, without those that failed; `errors` are those, by index.
    """

    outputs: Array
    batch_size: int
    queue_s: float
    compute_s: float
    errors: Errors = NO_ERRORS


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request in the queue. `batched` of its images are in a batch already, `completed` ones have run.

    `queued_s`, `due_s` and `started_s` are times of the batcher's clock: when it came, when it must be done, and when
    its first batch was formed. `outputs` are rows with the index of the image that they begin at: with several
    instances, a later part may be done first.
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
        """Fails the request, if it still waits, with an error of its own: raising one adds to its traceback."""
        if not self.future.done():
            self.future.set_exception(_copy(error))

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
    """The images of one request, from number `start` on, that are in one batch."""

    request: QueuedRequest
    images: Images
    start: int = 0


@dataclass(slots=True, eq=False)
class Batch:
    """The slices that run together, when their run started by the batcher's clock, and its expected duration."""

    slices: list[BatchSlice]
    started_s: float
    expected_s: float

    @property
    def size(self) -> int:
        """Number of images."""
        return sum(len(part.images) for part in self.slices)

    def join_images(self) -> Array:
        """The images of all slices as one array (size, ...). Copies them, except a single array."""
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
        """Distributes the outputs, (images, ...) in the order of the slices, to their requests.

        `errors` are those of single images, by row; their rows are dropped.
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
        """Fails every image by itself: its request gets the results of its other images."""
        for request, images, start in self.slices:
            request.errors.update((start + row, _copy(error)) for row in range(len(images)))
            request.complete(len(images), len(images), compute_s)

    def single_images(self) -> Iterator[BatchSlice]:
        """Every image as a slice of its own."""
        for request, images, start in self.slices:
            for number in range(len(images)):
                yield BatchSlice(request, images[number : number + 1], start + number)


def _copy(error: BaseException) -> BaseException:
    """An equal error without the traceback; the cause is shared. An error that cannot be copied is shared too."""
    try:
        duplicate = copy.copy(error)
    except Exception:  # an exception class may take other arguments than it keeps
        return error
    duplicate.__cause__ = error.__cause__
    return duplicate.with_traceback(None)
