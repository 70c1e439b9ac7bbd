"""What waits in a queue, what of it runs together, and how each request gets its rows of what came out."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class BatchResult(NamedTuple):
    """What became of one request: its rows of the outputs, and how it travelled."""

    outputs: Array
    batch_size: int
    queue_s: float
    compute_s: float


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request in the queue. `taken` images are in a batch already, `answered` ones have their outputs."""

    images: Array
    future: asyncio.Future[BatchResult]
    arrived_s: float
    taken: int = 0
    answered: int = 0
    started_s: float = 0.0
    compute_s: float = 0.0
    outputs: list[Array] = field(default_factory=list)
    background: bool = False


class BatchSlice(NamedTuple):
    """The part of an entry that rides in one batch."""

    entry: QueuedRequest
    images: Array


class Batch(NamedTuple):
    """What runs together, and since when (seconds of `time.perf_counter`)."""

    pieces: list[BatchSlice]
    begun_s: float

    def fail(self, error: BaseException) -> None:
        """The same error to everybody who still waits."""
        for entry, _ in self.pieces:
            if not entry.future.done():
                entry.future.set_exception(error)

    def answer(self, outputs: Array, compute_s: float) -> None:
        """Hands the outputs, (images, ...) in the order of the pieces, to whom they belong."""
        at = 0
        for entry, images in self.pieces:
            rows = outputs[at : at + len(images)]
            at += len(images)
            entry.answered += len(images)
            entry.compute_s += compute_s
            entry.outputs.append(rows)
            if entry.answered == len(entry.images) and not entry.future.done():
                whole = rows if len(entry.outputs) == 1 else np.concatenate(entry.outputs)
                queue_s = entry.started_s - entry.arrived_s
                entry.future.set_result(BatchResult(whole, len(outputs), queue_s, entry.compute_s))
