"""Moving averages of the weights: by the formula, validated in place of the weights, and removed afterwards."""

import keras
import numpy as np
import pytest

from training.fit.callbacks import ValidateEMA
from training.fit.ema import ema_weights
from training.fit.lr_schedules import Schedule
from training.fit.optimizers import make_optimizer
from training.recipes.base import Recipe

EMA_MOMENTUM = 0.75


def network(optimizer: str = "sgd", ema_decay: float = EMA_MOMENTUM) -> keras.Model:
    """One weight that begins at 4."""
    recipe = Recipe(
        name="any",
        dataset="xo",
        architecture="xo",
        learning_rate=1.0,
        momentum=0.0,
        optimizer=optimizer,
        ema_decay=ema_decay,
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[4.0]], np.float32)])
    model.compile(make_optimizer(recipe, model, Schedule(recipe, 10)), lambda _, answer: keras.ops.sum(answer))
    return model


def weight(model: keras.Model) -> float:
    return float(model.get_weights()[0][0, 0])


class WeightRecorder(keras.callbacks.Callback):
    """Records the weight after every step, and the one that is validated."""

    def __init__(self) -> None:
        super().__init__()
        self.after_steps: list[float] = []
        self.validated: list[float] = []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.after_steps.append(weight(self.model))

    def on_test_batch_end(self, batch: int, logs: object = None) -> None:
        self.validated.append(weight(self.model))


def fit(model: keras.Model, steps: int) -> WeightRecorder:
    """Every step takes its input, 0.5 more than the one before, off the weight."""
    recorder = WeightRecorder()
    inputs = np.arange(1, steps + 1, dtype=np.float32)[:, None] / 2
    callbacks = [ValidateEMA(), recorder]
    data = (inputs[:1], np.zeros((1, 1)))
    model.fit(
        inputs, np.zeros((steps, 1)), batch_size=1, shuffle=False, validation_data=data, callbacks=callbacks, verbose=0
    )
    return recorder


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_average_follows_its_formula_and_is_what_is_validated(optimizer: str) -> None:
    recorder = fit(network(optimizer), steps=4)
    expected = recorder.after_steps[0]
    for value in recorder.after_steps[1:]:
        expected = EMA_MOMENTUM * expected + (1 - EMA_MOMENTUM) * value
    assert recorder.validated == [pytest.approx(expected, rel=1e-6)]
    assert recorder.after_steps[-1] != pytest.approx(expected, rel=0.01)


def test_the_own_weights_come_back() -> None:
    model = network()
    fit(model, steps=2)
    model.set_weights([np.array([[9.0]], np.float32)])
    with ema_weights(model):
        assert weight(model) != 9.0
    assert weight(model) == 9.0
    with pytest.raises(RuntimeError), ema_weights(model):
        raise RuntimeError
    assert weight(model) == 9.0


def test_where_none_are_kept_the_weights_are_their_own() -> None:
    model = network(ema_decay=0.0)
    recorder = fit(model, steps=3)
    assert recorder.validated == recorder.after_steps[-1:]
    with ema_weights(model):
        assert weight(model) == recorder.after_steps[-1]
