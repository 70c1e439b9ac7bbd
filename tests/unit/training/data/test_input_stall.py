"""The input stall counts only the time in which a step waits for its batch. A slow input increases it."""

import time

import keras
import numpy as np
import pytest

from training.data.batches import TrainingBatches
from training.data.datasets.base import ArraySplit
from training.data.input_stall import STALL_COLUMN, BatchTiming, DataStallCallback
from training.recipes.base import Recipe

RECIPE = Recipe(name="any", dataset="any", architecture="lenet5", batch_size=4)


STEPS_S = ((10.0, 12.0), (12.0, 14.0))
"""Start and end times of the two steps of an epoch."""


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        (BatchTiming(9.0, 10.0), BatchTiming(10.0, 11.0), 0.0),  # both were ready before their steps began
        (BatchTiming(9.0, 11.0), BatchTiming(10.0, 11.5), 0.25),
        (BatchTiming(9.0, 11.0), BatchTiming(10.0, 13.0), 0.5),
        (BatchTiming(11.5, 12.0), BatchTiming(12.0, 12.0), 0.125),  # the step compiled before it requested its batch
    ],
)
def test_only_waiting_after_the_step_requested_a_batch_counts(
    first: BatchTiming, second: BatchTiming, share: float
) -> None:
    now_s = iter([10.0, *(moment for step in STEPS_S for moment in step)])
    callback = DataStallCallback({0: first, 1: second}, lambda: next(now_s))
    callback.on_epoch_begin(0)
    for batch in range(2):
        callback.on_train_batch_begin(batch)
        callback.on_train_batch_end(batch)
    logs: dict[str, float] = {}
    callback.on_epoch_end(0, logs)
    assert logs == {STALL_COLUMN: share}


class SlowSplit(ArraySplit):
    """A split in which reading a batch takes 200 ms."""

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        time.sleep(0.2)
        return super().read_images(indices)


def test_a_slow_disk_is_waited_for() -> None:
    split = SlowSplit(np.zeros((20, 4, 4, 1), np.uint8), np.zeros(20, np.int64))
    batches = TrainingBatches(split, np.arange(20), 2, RECIPE, workers=1)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    history = model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[DataStallCallback(batches.timings)])
    assert history.history[STALL_COLUMN][1] > 0.1  # the first epoch includes compilation
