"""For how long a training network waits for its pictures: an input that cannot keep up is seen, not guessed."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import keras

COLUMN = "waiting"


class Clocked(Protocol):
    """Batches that know when each of them was there."""

    def ready_s(self, index: int) -> float: ...


class Waiting(keras.callbacks.Callback):
    """Adds to an epoch's figures the share of its training time in which a step had to wait for its batch, 0 to 1.

    Backends draw batches ahead, so one that comes before its step begins is none that was waited for.
    """

    def __init__(self, batches: Clocked, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._batches = batches
        self._clock_s = clock_s

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began_s = self._clock_s()
        self._waited_s = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._wanted_s = self._clock_s()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._ended_s = self._clock_s()
        self._waited_s += max(0.0, self._batches.ready_s(batch) - self._wanted_s)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:  # the callbacks after this one see it too
            logs[COLUMN] = round(self._waited_s / (self._ended_s - self._began_s), 4)
