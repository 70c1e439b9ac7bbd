"""Averages of the weights follow the formula, are validated and kept, and are removed from the network afterwards."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from training.fit.callbacks import ValidateEMA
from training.fit.ema import AveragedWeights, estimate_statistics
from training.fit.lr_schedules import Schedule
from training.fit.optimizers import make_optimizer
from training.recipes.base import Recipe

DECAY = 0.75


def never(weights: list[NDArray]) -> list[NDArray]:
    """The estimate for networks without batch normalization."""
    raise AssertionError("there are no batch statistics to estimate")


def network(optimizer: str = "sgd", ema_decay: float = DECAY) -> keras.Model:
    """Returns a network with one weight, which starts at 4."""
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


class Watch(keras.callbacks.Callback):
    """Records the weight after every step, and the validated weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stepped: list[float] = []
        self.validated: list[float] = []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.stepped.append(weight(self.model))

    def on_test_batch_end(self, batch: int, logs: object = None) -> None:
        self.validated.append(weight(self.model))


def fit(model: keras.Model, steps: int) -> Watch:
    """Trains the network. Every step subtracts its input from the weight, and each input is 0.5 larger than the
    last."""
    watch = Watch()
    inputs = np.arange(1, steps + 1, dtype=np.float32)[:, None] / 2
    callbacks = [ValidateEMA(AveragedWeights(never)), watch]
    data = (inputs[:1], np.zeros((1, 1)))
    model.fit(
        inputs, np.zeros((steps, 1)), batch_size=1, shuffle=False, validation_data=data, callbacks=callbacks, verbose=0
    )
    return watch


def average(values: list[float], decay: float) -> float:
    """Computes the average: it starts with the first value, and its decay in step t is min(decay, (1 + t) / (10 +
    t))."""
    kept = values[0]
    for step, value in enumerate(values[1:], start=1):
        share = min(decay, (1 + step) / (10 + step))
        kept = share * kept + (1 - share) * value
    return kept


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("decay", "steps"), [(0.25, 4), (0.999, 12)])
def test_the_average_warms_up_and_is_what_is_validated(optimizer: str, decay: float, steps: int) -> None:
    watch = fit(network(optimizer, decay), steps)
    assert watch.validated == [pytest.approx(average(watch.stepped, decay), rel=1e-5)]
    assert watch.stepped[-1] != pytest.approx(watch.validated[0], rel=0.01)


def test_the_trained_weights_are_restored() -> None:
    model = network()
    fit(model, steps=2)
    averages = AveragedWeights(never)
    model.set_weights([np.array([[9.0]], np.float32)])
    with averages.apply_to(model):
        assert weight(model) != 9.0
    assert weight(model) == 9.0
    with pytest.raises(RuntimeError), averages.apply_to(model):
        raise RuntimeError
    assert weight(model) == 9.0


def test_the_weights_are_still_their_own_after_fit() -> None:
    """Keras would assign the averages, and a run that continues with larger images would train them."""
    model = network()
    watch = fit(model, steps=3)
    assert weight(model) == watch.stepped[-1] != watch.validated[-1]


def test_without_averages_the_trained_weights_are_validated() -> None:
    model = network(ema_decay=0.0)
    watch = fit(model, steps=3)
    assert watch.validated == watch.stepped[-1:]
    with AveragedWeights(never).apply_to(model):
        assert weight(model) == watch.stepped[-1]


def normalized(trainable: bool = True) -> keras.Model:
    """Returns a network that multiplies inputs by a weight and then applies batch normalization."""
    layers = [keras.layers.Dense(2, use_bias=False), keras.layers.BatchNormalization(momentum=0.9, trainable=trainable)]
    model = keras.Sequential([keras.Input((2,)), keras.Sequential(layers)])
    model.set_weights([np.diag([2.0, 3.0]), np.ones(2), np.zeros(2), np.full(2, 7.0), np.full(2, 7.0)])
    return model


def batches(count: int) -> list[tuple[NDArray, None]]:
    random = np.random.default_rng(1)
    return [(random.normal(size=(16, 2)).astype(np.float32), None) for _ in range(count)]


def test_statistics_are_the_mean_over_the_first_batches_for_the_weights_at_hand() -> None:
    images = batches(5)
    model = normalized()
    mean, variance = estimate_statistics(normalized(), model.get_weights(), images, count=3)
    seen = [batch @ np.diag([2.0, 3.0]) for batch, _ in images[:3]]
    np.testing.assert_allclose(mean, np.mean([batch.mean(axis=0) for batch in seen], axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, np.mean([batch.var(axis=0) for batch in seen], axis=0), rtol=1e-5)


def test_frozen_layers_keep_their_statistics() -> None:
    model = normalized(trainable=False)
    mean, variance = estimate_statistics(model, model.get_weights(), batches(2))
    assert mean.tolist() == variance.tolist() == [7.0, 7.0]


def test_averaged_weights_come_with_statistics_of_their_own_estimated_once_a_step() -> None:
    recipe = Recipe(name="any", dataset="xo", architecture="xo", learning_rate=0.1, ema_decay=0.5)
    model = normalized()
    model.compile(make_optimizer(recipe, model, Schedule(recipe, 10)), "mse")
    images = np.random.default_rng(2).normal(size=(32, 2)).astype(np.float32)
    model.fit(images, np.zeros((32, 2)), batch_size=8, verbose=0)
    given: list[list[NDArray]] = []

    def estimate(weights: list[NDArray]) -> list[NDArray]:
        given.append(weights)
        return [np.full(2, 5.0, np.float32), np.full(2, 6.0, np.float32)]

    averages = AveragedWeights(estimate)
    own = model.get_weights()
    for _ in range(2):
        with averages.apply_to(model):
            kernel, _, _, mean, variance = model.get_weights()
            assert (mean.tolist(), variance.tolist()) == ([5.0, 5.0], [6.0, 6.0])
            assert not np.array_equal(kernel, own[0])
    assert len(given) == 1
    np.testing.assert_array_equal(given[0][0], kernel)
    for before, after in zip(own, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


VALIDATE_ON_JAX = """
import numpy as np
from tests.unit.training.fit.test_ema import fit, network, weight
from training.fit.ema import AveragedWeights
model = network()
for epoch in range(3):  # each step donates the buffers of the one before
    watch = fit(model, steps=4)
print(watch.validated[0], watch.stepped[-1])
"""


def test_with_jax_training_continues_after_a_validation() -> None:
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", VALIDATE_ON_JAX], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    validated, stepped = map(float, done.stdout.split())
    assert np.isfinite(validated)
    assert validated != stepped
