"""Measures the fraction of training time in which a step waited for its batch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

STALL_COLUMN = "input_stall"


@dataclass(frozen=True)
class BatchTiming:
    """Times at which a batch was requested and was ready, on the monotonic clock."""

    requested_s: float
    ready_s: float

    def stall_s(self, step_began_s: float) -> float:
        """Returns the seconds for which a step that began at `step_began_s` was stalled on this batch.

        A batch that was ready before its step began counts as zero, because backends prefetch. Time before the request
        does not count either: in the first step the backend compiles before it requests a batch.
        """
        return max(0.0, self.ready_s - max(self.requested_s, step_began_s))


class DataStallCallback(keras.callbacks.Callback):
    """Adds to an epoch's metrics the fraction of its training time in which steps waited for their batches, 0 to 1.

    `timings` maps the index of every batch to its times.
    """

    def __init__(self, timings: Mapping[int, BatchTiming], clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._timings = timings
        self._clock_s = clock_s

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began_s = self._clock_s()
        self._stall_s = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._step_began_s = self._clock_s()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._ended_s = self._clock_s()
        self._stall_s += self._timings[batch].stall_s(self._step_began_s)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:  # the callbacks after this one read the same dictionary
            logs[STALL_COLUMN] = round(self._stall_s / (self._ended_s - self._began_s), 4)
