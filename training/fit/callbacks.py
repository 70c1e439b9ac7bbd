"""Callbacks for Keras' training loop: divergence, progress bar, history and checkpoint, learning rate, early stopping.

`early_stopping` decides from the run's history alone when a run stops early or lowers its learning rate.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np
from tqdm import tqdm

from training.data.batches import TrainingBatches
from training.data.input_stall import STALL_COLUMN
from training.errors import TrainingError
from training.fit import early_stopping
from training.fit.ema import AveragedWeights
from training.fit.lr_schedules import Schedule
from training.recipes.base import Recipe
from training.runs import checkpoint
from training.runs.checkpoint import TrainingProgress
from training.runs.run_folder import HistoryRow, Run
from training.runs.tensorboard import EventFile

SIDE_COLUMN = "side_px"
"""History column: side of an epoch's training images in pixels, if the recipe has several."""
Log = Callable[[str], None]
"""Prints one line for the user."""


class SetEpoch(keras.callbacks.Callback):
    """Sets the epoch of the training batches before the first batch is made."""

    def __init__(self, batches: TrainingBatches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._batches.epoch = epoch


class StopOnDivergence(keras.callbacks.Callback):
    """Raises TrainingError after the first batch whose loss is NaN or infinite, before a checkpoint is written.

    Each loss is checked one batch late, because reading a loss waits for the device, and the device should already have
    its next batch.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._unchecked: tuple[int, Any] | None = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._check()
        self._unchecked = batch, (logs or {})["loss"]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._check()

    def _check(self) -> None:
        if self._unchecked is None:
            return
        batch, loss = self._unchecked[0], float(self._unchecked[1])
        if not math.isfinite(loss):
            # The rate is not read from the optimizer, whose step counter is already at the next batch, and with JAX
            # does not change within an epoch.
            rate = self._schedule.rate_at(self._epoch, batch)
            raise TrainingError(
                f"The loss became {loss} in epoch {self._epoch + 1}, batch {batch + 1}, at learning rate {rate:.3g}. "
                "Lower learning_rate or raise warm_up_epochs (--set), in a new run."
            )


class ProgressBar(keras.callbacks.Callback):
    """Shows the progress of each epoch on one line of a terminal, which is erased at the end of the epoch."""

    def __init__(self, batches: int, epochs: int, stream: TextIO) -> None:
        super().__init__()
        self._batches = batches
        self._epochs = epochs
        self._stream = stream

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        text = f"epoch {epoch + 1}/{self._epochs}"
        self._bar = tqdm(total=self._batches, desc=text, unit=" batches", file=self._stream, leave=False, ascii=".#")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._bar.set_postfix_str(f"loss {float((logs or {})['loss']):.4f}", refresh=False)
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._bar.close()


class RecordEpoch(keras.callbacks.Callback):
    """Records every epoch: history, best weights so far, checkpoint, `history.csv` and one log line.

    If several processes train one run, only the main process writes to disk.
    """

    def __init__(
        self,
        run: Run,
        progress: TrainingProgress,
        images: int,
        recipe: Recipe,
        schedule: Schedule,
        averages: AveragedWeights,
        log: Log,
        is_main: bool = True,
    ) -> None:
        super().__init__()
        self._averages = averages
        self._is_main = is_main
        self._run = run
        self._progress = progress
        self._images = images
        self._recipe = recipe
        self._schedule = schedule
        self._log = log

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._start_s = time.monotonic()
        self._train_end_s: float | None = None

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._train_end_s = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        row = self._row(epoch, logs or {})
        self._progress.history.append(row)
        if self._recipe.keep == "best" and early_stopping.best_epoch(self._recipe, self._progress.history) == epoch:
            with self._averages.apply_to(self.model):
                self._progress.best = [np.array(variable) for variable in self.model.weights]
            self._progress.best_epoch = epoch
        if self._is_main:
            checkpoint.save(self._run.checkpoint_path, self.model, self._progress)
            self._run.write_history(self._progress.history)
            self._log(format_epoch(row, self._recipe.epochs))

    def _row(self, epoch: int, logs: Mapping[str, Any]) -> HistoryRow:
        now_s = time.monotonic()
        metrics = {name: float(value) for name, value in logs.items()}
        return {
            "epoch": epoch + 1,
            **metrics,
            **({} if (side_px := self._recipe.side_px_at(epoch)) is None else {SIDE_COLUMN: side_px}),
            "learning_rate": self._schedule.rate_at_end_of(epoch),
            "seconds": round(now_s - self._start_s, 3),
            "images_per_s": round(self._images / ((self._train_end_s or now_s) - self._start_s), 1),
        }


class ValidateEMA(keras.callbacks.Callback):
    """Makes the validation use the moving averages of the weights, if the optimizer keeps them."""

    def __init__(self, averages: AveragedWeights) -> None:
        super().__init__()
        self._averages = averages

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._exit_stack = ExitStack()
        self._exit_stack.enter_context(self._averages.apply_to(self.model))

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._exit_stack.close()


class ReduceLROnPlateau(keras.callbacks.Callback):
    """Passes the number of plateaus so far to the schedule before every epoch."""

    def __init__(self, recipe: Recipe, progress: TrainingProgress, schedule: Schedule) -> None:
        super().__init__()
        self._recipe = recipe
        self._progress = progress
        self._schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._schedule.set_plateaus(early_stopping.count_plateaus(self._recipe, self._progress.history))


class EarlyStopping(keras.callbacks.Callback):
    """Stops the training when the recipe's patience is exhausted. Runs after `RecordEpoch`."""

    def __init__(self, recipe: Recipe, progress: TrainingProgress, log: Log) -> None:
        super().__init__()
        self._recipe = recipe
        self._progress = progress
        self._log = log

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if early_stopping.is_out_of_patience(self._recipe, self._progress.history):
            self._log(f"stopped early: no better validation {self._recipe.monitor} for {self._recipe.patience} epochs")
            self.model.stop_training = True


class TensorBoard(keras.callbacks.Callback):
    """Adds every epoch to TensorBoard's log. Runs after `RecordEpoch`."""

    def __init__(self, folder: Path, progress: TrainingProgress) -> None:
        super().__init__()
        self._folder = folder
        self._progress = progress

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._events = EventFile(self._folder, self._progress.history)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._events.append(self._progress.history[-1])


def format_epoch(row: HistoryRow, epochs: int) -> str:
    """Returns one line that summarizes an epoch."""
    parts = [f"epoch {row['epoch']:.0f}/{epochs}", f"loss {row['loss']:.4f}", f"accuracy {row['accuracy']:.4f}"]
    if "val_accuracy" in row:
        parts += [f"val loss {row['val_loss']:.4f}", f"val accuracy {row['val_accuracy']:.4f}"]
    parts += [f"rate {row['learning_rate']:.4g}", f"{row['images_per_s']:.0f} images/s"]
    if SIDE_COLUMN in row:
        parts += [f"{row[SIDE_COLUMN]:.0f} px"]
    if STALL_COLUMN in row:
        parts += [f"{row[STALL_COLUMN]:.0%} waiting for data"]
    parts += [f"{row['seconds']:.0f} s"]
    return "  ".join(parts)
