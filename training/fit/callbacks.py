"""What happens around Keras' training loop: place, rate, divergence, bar, history, checkpoint, epoch lines, its end."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np

from training.data.batches import TrainingBatches
from training.data.input_stall import STALL_COLUMN as WAITING
from training.errors import TrainingError
from training.fit import early_stopping
from training.fit.ema import averaged
from training.fit.lr_schedules import Schedule
from training.recipes.base import Recipe
from training.runs import checkpoint
from training.runs.checkpoint import Progress
from training.runs.run_folder import Row, Run
from training.runs.tensorboard import EventFile

Say = Callable[[str], None]


class SetEpoch(keras.callbacks.Callback):
    """Tells the batches which epoch it is, before the first of them is drawn."""

    def __init__(self, batches: TrainingBatches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._batches.epoch = epoch


class StopOnDivergence(keras.callbacks.Callback):
    """Raises TrainingError for the first batch whose loss is not a number, before a checkpoint can hold it.

    It looks one batch behind: asking for a loss waits for it, and the device is to have its next batch meanwhile.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._last: tuple[int, Any] | None = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._check()
        self._last = batch, (logs or {})["loss"]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._check()

    def _check(self) -> None:
        if self._last is None:
            return
        batch, loss = self._last[0], float(self._last[1])
        if not math.isfinite(loss):
            # Not asked of the optimiser, which has counted this step already (and on JAX no step of this epoch).
            rate = self._schedule.at(self._epoch, batch)
            raise TrainingError(
                f"The loss became {loss} in epoch {self._epoch + 1}, batch {batch + 1}, at learning rate {rate:.3g}. "
                "Lower learning_rate or raise warm_up_epochs (--set), in a new run."
            )


class ProgressBar(keras.callbacks.Callback):
    """One line that shows how far an epoch is, rewritten in place; for people at a terminal."""

    WIDTH = 30
    INTERVAL_S = 0.2

    def __init__(self, batches: int, epochs: int, stream: TextIO) -> None:
        super().__init__()
        self._batches = batches
        self._epochs = epochs
        self._stream = stream

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._started_s = time.monotonic()
        self._shown_s = 0.0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        now = time.monotonic()
        if now - self._shown_s < self.INTERVAL_S:
            return
        self._shown_s = now
        done = (batch + 1) / self._batches
        filled = "#" * round(done * self.WIDTH)
        left_s = (now - self._started_s) * (1 / done - 1)
        loss = float((logs or {})["loss"])
        self._write(
            f"epoch {self._epoch + 1}/{self._epochs} [{filled:{self.WIDTH}}] {batch + 1}/{self._batches}  "
            f"loss {loss:.4f}  {left_s:.0f} s left"
        )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._write("")

    def _write(self, line: str) -> None:
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()


class RecordEpoch(keras.callbacks.Callback):
    """After every epoch: a row of history, the best weights so far, the checkpoint, `history.csv` and one line.

    Of several processes that train one run only one `writes`.
    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        images: int,
        recipe: Recipe,
        schedule: Schedule,
        say: Say,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self._writes = writes
        self._run = run
        self._progress = progress
        self._images = images
        self._recipe = recipe
        self._schedule = schedule
        self._say = say

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._started_s = time.monotonic()
        self._trained_s = None

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._trained_s = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        row = self._row(epoch, logs or {})
        self._progress.history.append(row)
        if self._recipe.keep == "best" and early_stopping.best_epoch(self._recipe, self._progress.history) == epoch:
            with averaged(self.model):
                self._progress.best = [np.array(variable) for variable in self.model.weights]
            self._progress.best_epoch = epoch
        if self._writes:
            checkpoint.save(self._run.checkpoint_path, self.model, self._progress)
            self._run.write_history(self._progress.history)
            self._say(describe(row, self._recipe.epochs))

    def _row(self, epoch: int, logs: Mapping[str, Any]) -> Row:
        now = time.monotonic()
        figures = {name: float(value) for name, value in logs.items()}
        return {
            "epoch": epoch + 1,
            **figures,
            "learning_rate": self._schedule.at_end_of(epoch),
            "seconds": round(now - self._started_s, 3),
            "images_per_s": round(self._images / ((self._trained_s or now) - self._started_s), 1),
        }


class AveragedValidation(keras.callbacks.Callback):
    """Validates the averages of the weights, where the optimiser keeps them."""

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._swapped = ExitStack()
        self._swapped.enter_context(averaged(self.model))

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._swapped.close()


class ReduceLROnPlateau(keras.callbacks.Callback):
    """Tells the schedule before every epoch how many plateaus lie behind the run."""

    def __init__(self, recipe: Recipe, progress: Progress, schedule: Schedule) -> None:
        super().__init__()
        self._recipe = recipe
        self._progress = progress
        self._schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._schedule.lower(early_stopping.plateaus(self._recipe, self._progress.history))


class StopEarly(keras.callbacks.Callback):
    """Ends the training when the recipe's patience is used up. Comes after `RecordEpoch`."""

    def __init__(self, recipe: Recipe, progress: Progress, say: Say) -> None:
        super().__init__()
        self._recipe = recipe
        self._progress = progress
        self._say = say

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if early_stopping.is_over(self._recipe, self._progress.history):
            self._say(f"stopped early: no better validation {self._recipe.watch} for {self._recipe.patience} epochs")
            self.model.stop_training = True


class TensorBoard(keras.callbacks.Callback):
    """Adds every epoch to TensorBoard's log. Comes after `RecordEpoch`."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        super().__init__()
        self._folder = folder
        self._progress = progress

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._events = EventFile(self._folder, self._progress.history)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._events.append(self._progress.history[-1])


def describe(row: Row, epochs: int) -> str:
    """One epoch in one line."""
    parts = [f"epoch {row['epoch']:.0f}/{epochs}", f"loss {row['loss']:.4f}", f"accuracy {row['accuracy']:.4f}"]
    if "val_accuracy" in row:
        parts += [f"val loss {row['val_loss']:.4f}", f"val accuracy {row['val_accuracy']:.4f}"]
    parts += [f"rate {row['learning_rate']:.4g}", f"{row['images_per_s']:.0f} images/s"]
    if WAITING in row:
        parts += [f"{row[WAITING]:.0%} waiting for data"]
    parts += [f"{row['seconds']:.0f} s"]
    return "  ".join(parts)
