"""Optimizers and losses follow their formulas step by step; weight decay applies to kernels only."""

import keras
import numpy as np
import pytest

from training.fit.lr_schedules import Schedule
from training.fit.optimizers import make_loss, make_optimizer
from training.recipes.base import Recipe

RATE, DECAY, MOMENTUM = 0.1, 0.02, 0.9


def recipe(**fields: object) -> Recipe:
    return Recipe(name="any", dataset="mnist", architecture="lenet5", learning_rate=RATE, **fields)


def train_without_gradient(recipe: Recipe, steps: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns weights before and after steps with a zero gradient, in which only weight decay has an effect."""
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    )
    model.add(keras.layers.Dense(2))
    for variable in model.trainable_variables:
        variable.assign(np.linspace(0.5, 2, int(np.prod(variable.shape))).reshape(variable.shape))
    before = [np.array(variable) for variable in model.trainable_variables]
    model.compile(make_optimizer(recipe, model, Schedule(recipe, steps)), lambda _, logits: 0.0 * keras.ops.sum(logits))
    model.fit(np.zeros((steps, 4, 4, 2)), np.zeros((steps, 2)), batch_size=1, verbose=0)
    return before, [np.array(variable) for variable in model.trainable_variables]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_decays_kernels_through_the_momentum(nesterov: bool) -> None:
    """The papers' formula: v = m v - rate (gradient + decay w); w changes by v, or with Nesterov by the next v."""
    steps = 4
    before, after = train_without_gradient(recipe(weight_decay=DECAY, momentum=MOMENTUM, nesterov=nesterov), steps)
    weight, velocity = 1.0, 0.0
    for _ in range(steps):
        step = RATE * DECAY * weight
        velocity = MOMENTUM * velocity - step
        weight += MOMENTUM * velocity - step if nesterov else velocity
    assert weight < 0.99
    assert_kernels_scaled(before, after, weight)


def test_adamw_decays_kernels_beside_the_gradient() -> None:
    before, after = train_without_gradient(recipe(weight_decay=DECAY, optimizer="adamw"), steps=3)
    assert_kernels_scaled(before, after, (1 - RATE * DECAY) ** 3)


def test_without_decay_weights_do_not_change() -> None:
    before, after = train_without_gradient(recipe(), steps=2)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def assert_kernels_scaled(before: list[np.ndarray], after: list[np.ndarray], factor: float) -> None:
    """Checks that only kernels are scaled.

    Variables are: conv kernel and bias, gamma and beta, dense kernel and bias.
    """
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        np.testing.assert_allclose(new, old * (factor if index in (0, 4) else 1.0), rtol=1e-5)


def test_sgd_follows_the_gradient() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[3.0]])])
    plain = recipe(momentum=0.0)
    model.compile(make_optimizer(plain, model, Schedule(plain, 10)), lambda _, answer: keras.ops.sum(answer))
    model.fit(np.full((1, 1), 2.0), np.zeros((1, 1)), verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], [[3.0 - RATE * 2.0]], rtol=1e-6)


class TwoKernels:
    """The part of a model that an optimizer needs: two kernels of ones."""

    def __init__(self) -> None:
        self.trainable_variables = [keras.Variable(np.ones_like(each), name="kernel") for each in GRADIENTS]

    def moved(self) -> list[np.ndarray]:
        return [np.array(variable) - 1 for variable in self.trainable_variables]


GRADIENTS = [np.array([[3.0, 0.0]], np.float32), np.array([4.0], np.float32)]  # their global norm is 5


def step(optimizer: keras.optimizers.Optimizer, scale: float = 1.0) -> None:
    optimizer.apply([keras.ops.convert_to_tensor(scale * gradient) for gradient in GRADIENTS])


@pytest.mark.parametrize(("clip_norm", "factor"), [(2.5, 0.5), (5.0, 1.0), (50.0, 1.0)])
def test_long_gradients_are_scaled_to_the_norm_before_decay_is_added(clip_norm: float, factor: float) -> None:
    chosen, kernels = recipe(momentum=0.0, weight_decay=DECAY, clip_norm=clip_norm), TwoKernels()
    step(make_optimizer(chosen, kernels, Schedule(chosen, 10)))
    for found, gradient in zip(kernels.moved(), GRADIENTS, strict=True):
        np.testing.assert_allclose(found, -RATE * (factor * gradient + DECAY), rtol=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "of_keras"),
    [
        ("sgd", keras.optimizers.SGD(RATE, global_clipnorm=1.0)),
        ("adamw", keras.optimizers.AdamW(RATE, weight_decay=0.0, global_clipnorm=1.0)),
    ],
)
def test_gradients_are_clipped_as_keras_clips_them(optimizer: str, of_keras: keras.optimizers.Optimizer) -> None:
    """Without decay. AdamW's first step is the same for any norm of the gradient, so there are two steps."""
    chosen, kernels, expected = recipe(momentum=0.0, optimizer=optimizer, clip_norm=1.0), TwoKernels(), TwoKernels()
    own = make_optimizer(chosen, kernels, Schedule(chosen, 10))
    of_keras.build(expected.trainable_variables)
    for each in (own, of_keras):
        step(each)
        step(each, scale=0.01)  # too small to be clipped
    for found, wanted in zip(kernels.moved(), expected.moved(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


LABELS = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
LOGITS = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, 1.0]], np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_cross_entropy_is_plain_whatever_the_smoothing_of_the_labels() -> None:
    """Training batches smooth their labels, so that the validation loss in `metrics.json` is without smoothing."""
    expected = -(LABELS * np.log(softmax(LOGITS))).sum(axis=1).mean()
    for smoothing in (0.0, 0.1):
        found = make_loss(recipe(label_smoothing=smoothing))(LABELS, LOGITS)
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_squared_error_is_of_probabilities() -> None:
    expected = ((softmax(LOGITS) - LABELS) ** 2).mean(axis=1)
    np.testing.assert_allclose(make_loss(recipe(loss="squared_error"))(LABELS, LOGITS), expected, rtol=1e-5)
