"""The requests in a queue, the parts of them that run together, and the distribution of the outputs to the requests."""

import asyncio
import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class InferenceResult(NamedTuple):
    """The result of one request: its rows of the outputs, and the batch size and times that it saw."""

    outputs: Array
    batch_size: int
    queue_s: float
    compute_s: float


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request in the queue. `batched` of its images are in a batch already, `completed` ones have their outputs.

    `queued_s`, `due_s` and `started_s` are times of the batcher's clock: when it came, when it must be done, and when
    its first batch was formed.
    """

    images: Array
    future: asyncio.Future[InferenceResult]
    queued_s: float
    due_s: float = float("inf")
    batched: int = 0
    completed: int = 0
    started_s: float = 0.0
    compute_s: float = 0.0
    outputs: list[Array] = field(default_factory=list)
    background: bool = False


class BatchSlice(NamedTuple):
    """The images of one request that are in one batch."""

    request: QueuedRequest
    images: Array


@dataclass(slots=True, eq=False)
class Batch:
    """The slices that run together, when the run started, and when it is expected to end, by the batcher's clock."""

    slices: list[BatchSlice]
    started_s: float
    expected_end_s: float

    def fail(self, error: BaseException) -> None:
        """Fails every request that still waits, each with an error of its own: raising one adds to its traceback."""
        for request, _ in self.slices:
            if not request.future.done():
                request.future.set_exception(_copy(error))

    def complete(self, outputs: Array, compute_s: float) -> None:
        """Distributes the outputs, (images, ...) in the order of the slices, to their requests."""
        position = 0
        for request, images in self.slices:
            rows = outputs[position : position + len(images)]
            position += len(images)
            request.completed += len(images)
            request.compute_s += compute_s
            request.outputs.append(rows)
            if request.completed == len(request.images) and not request.future.done():
                merged = rows if len(request.outputs) == 1 else np.concatenate(request.outputs)
                queue_s = request.started_s - request.queued_s
                request.future.set_result(InferenceResult(merged, len(outputs), queue_s, request.compute_s))


def _copy(error: BaseException) -> BaseException:
    """An equal error without the traceback; the cause is shared. An error that cannot be copied is shared too."""
    try:
        duplicate = copy.copy(error)
    except Exception:  # an exception class may take other arguments than it keeps
        return error
    duplicate.__cause__ = error.__cause__
    return duplicate.with_traceback(None)
