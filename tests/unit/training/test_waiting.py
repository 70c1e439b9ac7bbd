"""The share of time spent waiting: only what a step had to wait counts, and a slow input shows."""

import time

import keras
import numpy as np
import pytest

from training.batches import TrainingBatches
from training.datasets.base import ArraySplit
from training.recipes.base import Recipe
from training.waiting import COLUMN, Waiting

RECIPE = Recipe(name="any", dataset="any", architecture="lenet5", batch_size=4)


class Script:
    """A clock and batches that say what the test wants them to."""

    def __init__(self, **ready_s: float) -> None:
        self.now_s = 0.0
        self._ready_s = ready_s

    def clock(self) -> float:
        return self.now_s

    def ready_s(self, index: int) -> float:
        return self._ready_s[f"batch{index}"]


@pytest.mark.parametrize(
    ("ready_s", "share"),
    [
        ({"batch0": 10.0, "batch1": 11.0}, 0.0),  # both were there when their steps began
        ({"batch0": 11.0, "batch1": 11.5}, 0.25),
        ({"batch0": 11.0, "batch1": 13.0}, 0.5),
    ],
)
def test_a_batch_is_waited_for_from_the_beginning_of_its_step(ready_s: dict[str, float], share: float) -> None:
    script = Script(**ready_s)
    waiting = Waiting(script, script.clock)
    script.now_s = 10.0
    waiting.on_epoch_begin(0)
    for batch, (begin_s, end_s) in enumerate([(10.0, 12.0), (12.0, 14.0)]):
        script.now_s = begin_s
        waiting.on_train_batch_begin(batch)
        script.now_s = end_s
        waiting.on_train_batch_end(batch)
    script.now_s = 20.0  # validation is no training
    logs: dict[str, float] = {}
    waiting.on_epoch_end(0, logs)
    assert logs == {COLUMN: share}


class SlowSplit(ArraySplit):
    """A disk from which each batch takes 50 ms."""

    def pictures(self, indices: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return super().pictures(indices)


def test_a_slow_disk_is_waited_for() -> None:
    split = SlowSplit(np.zeros((40, 4, 4, 1), np.uint8), np.zeros(40, np.int64))
    batches = TrainingBatches(split, np.arange(40), 2, RECIPE, workers=1)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    history = model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[Waiting(batches)])
    assert history.history[COLUMN][1] > 0.2  # the first has the time of compiling in it
