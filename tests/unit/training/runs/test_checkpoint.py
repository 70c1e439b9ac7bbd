"""Checkpoints restore the complete training state into a new network; other files are rejected."""

from pathlib import Path

import keras
import numpy as np
import pytest

from training.errors import TrainingError
from training.fit.lr_schedules import Schedule
from training.fit.optimizers import make_optimizer
from training.recipes.base import Recipe
from training.runs import checkpoint
from training.runs.checkpoint import TrainingProgress

RECIPE = Recipe(name="any", dataset="mnist", architecture="lenet5", learning_rate=0.1)


def network(units: int = 4) -> keras.Model:
    """Returns a network with weights, moving statistics and a random layer."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(units), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    )
    model.compile(make_optimizer(RECIPE, model, Schedule(RECIPE, 10)), "mse")
    return model


def train(model: keras.Model, epochs: int = 1) -> list[np.ndarray]:
    data = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    model.fit(data, np.ones((32, model.output_shape[-1])), batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model.get_weights()


def test_training_continues_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    keras.utils.set_random_seed(1)
    original = network()
    train(original)
    progress = TrainingProgress([{"epoch": 1.0, "loss": 0.25}], original.get_weights(), best_epoch=0)
    checkpoint.save(path, original, progress)
    expected = train(original, epochs=2)

    keras.utils.set_random_seed(99)
    resumed = network()
    restored = checkpoint.restore(path, resumed)
    checkpoint.restore_optimizer(path, resumed)
    assert restored.history == progress.history
    assert (restored.epochs, restored.best_epoch) == (1, 0)
    for one, other in zip(restored.best, progress.best, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(train(resumed, epochs=2), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_a_checkpoint_a_run_starts_again(tmp_path: Path) -> None:
    progress = checkpoint.restore(tmp_path / "checkpoint.npz", network())
    assert (progress.epochs, progress.history, progress.best_epoch) == (0, [], None)


def test_a_checkpoint_of_another_network_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, network(units=4), TrainingProgress())
    with pytest.raises(TrainingError, match="cannot be resumed from"):
        checkpoint.restore(path, network(units=5))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_rejected(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, network(), TrainingProgress())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(TrainingError, match="Start a new run"):
        checkpoint.restore(path, network())
