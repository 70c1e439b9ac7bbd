"""For how long a training network waits for its images: an input that cannot keep up is seen, not guessed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

STALL_COLUMN = "waiting"


@dataclass(frozen=True)
class BatchTiming:
    """When a batch was asked for and when it was there, on the monotonic clock."""

    requested_s: float
    ready_s: float

    def stall_s(self, step_began_s: float) -> float:
        """What a step that wanted it from then on had to wait; not for the backend, which may ask late or ahead."""
        return max(0.0, self.ready_s - max(self.requested_s, step_began_s))


class DataStallCallback(keras.callbacks.Callback):
    """Adds to an epoch's figures the share of its training time in which a step had to wait for its batch, 0 to 1.

    `timings` tells of every batch by its index when it was. Backends draw batches ahead, so one that comes before its
    step begins is none that was waited for; and in the first step they compile before they ask.
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
        if logs is not None:  # the callbacks after this one see it too
            logs[STALL_COLUMN] = round(self._stall_s / (self._ended_s - self._began_s), 4)
