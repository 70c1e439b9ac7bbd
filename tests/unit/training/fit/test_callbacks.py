"""Callbacks: a diverging run stops with epoch and batch, the best epoch is kept, and each epoch logs one line."""

import io
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from training.errors import TrainingError
from training.fit.callbacks import ProgressBar, RecordEpoch, StopOnDivergence, format_epoch
from training.fit.ema import AveragedWeights
from training.fit.lr_schedules import Schedule
from training.fit.optimizers import make_optimizer
from training.recipes.base import Recipe
from training.runs import checkpoint
from training.runs.checkpoint import TrainingProgress
from training.runs.run_folder import Run

RECIPE = Recipe(
    name="any",
    dataset="mnist",
    architecture="lenet5",
    learning_rate=0.25,
    schedule="step",
    milestones=(2.4,),
    decay=0.5,
)
SCHEDULE = Schedule(RECIPE, steps_per_epoch=4)


def network() -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="zeros")])
    model.compile(make_optimizer(RECIPE, model, SCHEDULE), "mse", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_non_finite_loss_stops_with_epoch_batch_and_rate(batch: int) -> None:
    data = np.ones((16, 2), np.float32)
    data[4 * batch - 3] = np.inf  # of four batches of four
    rate = {1: "0.25", 3: "0.125", 4: "0.125"}[batch]
    with pytest.raises(TrainingError, match=rf"epoch 3, batch {batch}, at learning rate {rate}.*Lower learning_rate"):
        network().fit(
            data,
            np.ones((16, 2)),
            batch_size=4,
            initial_epoch=2,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[StopOnDivergence(SCHEDULE)],
        )


def record_epoch(folder: Path, keep_best: bool, lines: list[str]) -> tuple[RecordEpoch, TrainingProgress]:
    progress = TrainingProgress()
    recipe = replace(RECIPE, epochs=4, keep="best" if keep_best else "last")
    averages = AveragedWeights(lambda weights: weights)  # this optimizer keeps no average
    callback = RecordEpoch(Run(folder), progress, 100, recipe, SCHEDULE, averages, lines.append)
    callback.set_model(network())
    return callback, progress


def run_epoch(callback: RecordEpoch, epoch: int, val_accuracy: float) -> None:
    """Runs an epoch that sets every weight to the epoch's number."""
    callback.on_epoch_begin(epoch)
    callback.on_test_begin()
    callback.model.set_weights([np.full(w.shape, epoch) for w in callback.model.get_weights()])
    callback.on_epoch_end(
        epoch, {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": np.float32(val_accuracy)}
    )


def test_the_first_of_the_best_epochs_is_kept(tmp_path: Path) -> None:
    callback, progress = record_epoch(tmp_path, keep_best=True, lines=[])
    for epoch, accuracy in enumerate([0.25, 0.75, 0.75, 0.5]):
        run_epoch(callback, epoch, accuracy)
    assert progress.best_epoch == 1
    assert all((weights == 1).all() for weights in progress.best)
    assert progress.epochs == 4


def test_keeping_the_last_keeps_no_second_copy(tmp_path: Path) -> None:
    callback, progress = record_epoch(tmp_path, keep_best=False, lines=[])
    run_epoch(callback, 0, 0.5)
    assert progress.best == []
    assert progress.best_epoch is None


def test_after_an_epoch_everything_is_on_disk(tmp_path: Path) -> None:
    lines: list[str] = []
    callback, progress = record_epoch(tmp_path, keep_best=True, lines=lines)
    run_epoch(callback, 0, 0.5)
    assert checkpoint.restore(Run(tmp_path).checkpoint_path, network()).history == progress.history
    assert Run(tmp_path).history() == progress.history
    assert len(lines) == 1
    assert lines[0].startswith("epoch 1/4  loss 1.0000  accuracy 0.5000  val loss 1.0000  val accuracy 0.5000")
    assert progress.history[0]["images_per_s"] > 0


def test_the_bar_shows_epoch_batches_and_loss_and_leaves_a_clean_line() -> None:
    stream = io.StringIO()
    bar = ProgressBar(batches=4, epochs=3, stream=stream)
    bar.on_epoch_begin(1)
    bar._bar.mininterval = 0.0
    for batch in range(4):
        bar.on_train_batch_end(batch, {"loss": 0.5})
    bar.on_epoch_end(1)
    *shown, erased, _ = stream.getvalue().split("\r")[1:]
    assert all(line.startswith("epoch 2/3: ") for line in shown)
    assert "4/4" in shown[-1]
    assert "loss 0.5000" in shown[-1]
    assert not erased.strip()


def test_a_run_without_validation_says_nothing_of_it() -> None:
    row = {"epoch": 2, "loss": 0.5, "accuracy": 0.75, "learning_rate": 0.1, "seconds": 3.2, "images_per_s": 1234.5}
    assert "1234 images/s  7% waiting for data  3 s" in format_epoch(row | {"input_stall": 0.07}, 9)
    assert format_epoch(row, 9) == "epoch 2/9  loss 0.5000  accuracy 0.7500  rate 0.1  1234 images/s  3 s"
