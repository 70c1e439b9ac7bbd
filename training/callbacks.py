"""What happens around Keras' training loop: place in the data, divergence, bar, history, checkpoint and epoch lines."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import keras

from training import checkpoint
from training.batches import TrainingBatches
from training.checkpoint import Progress
from training.errors import TrainingError
from training.runs import Row, Run
from training.schedules import Schedule

Say = Callable[[str], None]


class Position(keras.callbacks.Callback):
    """Tells the batches which epoch it is, before the first of them is drawn."""

    def __init__(self, batches: TrainingBatches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._batches.epoch = epoch


class StopOnDivergence(keras.callbacks.Callback):
    """Raises TrainingError at the first batch whose loss is not a number, before a checkpoint can hold it."""

    def __init__(self, schedule: Schedule, steps_per_epoch: int) -> None:
        super().__init__()
        self._schedule = schedule
        self._steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            # Not asked of the optimiser, which has counted this step already (and on JAX no step of this epoch).
            rate = float(self._schedule(self._epoch * self._steps_per_epoch + batch))
            raise TrainingError(
                f"The loss became {loss} in epoch {self._epoch + 1}, batch {batch + 1}, at learning rate {rate:.3g}. "
                "Lower learning_rate or raise warm_up_epochs (--set), in a new run."
            )


class Bar(keras.callbacks.Callback):
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


class Bookkeeping(keras.callbacks.Callback):
    """After every epoch: a row of history, the best weights so far, the checkpoint, `history.csv` and one line."""

    def __init__(self, run: Run, progress: Progress, pictures: int, epochs: int, keep_best: bool, say: Say) -> None:
        super().__init__()
        self._run = run
        self._progress = progress
        self._pictures = pictures
        self._epochs = epochs
        self._keep_best = keep_best
        self._say = say

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._started_s = time.monotonic()
        self._trained_s = None

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._trained_s = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        row = self._row(epoch, logs or {})
        self._progress.history.append(row)
        if self._keep_best and row["val_accuracy"] > self._best_accuracy():
            self._progress.best = self.model.get_weights()
            self._progress.best_epoch = epoch
        checkpoint.save(self._run.checkpoint_path, self.model, self._progress)
        self._run.write_history(self._progress.history)
        self._say(describe(row, self._epochs))

    def _row(self, epoch: int, logs: Mapping[str, Any]) -> Row:
        now = time.monotonic()
        figures = {name: float(value) for name, value in logs.items()}
        return {
            "epoch": epoch + 1,
            **figures,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": round(now - self._started_s, 3),
            "images_per_s": round(self._pictures / ((self._trained_s or now) - self._started_s), 1),
        }

    def _best_accuracy(self) -> float:
        best = self._progress.best_epoch
        return -1.0 if best is None else self._progress.history[best]["val_accuracy"]


def describe(row: Row, epochs: int) -> str:
    """One epoch in one line."""
    parts = [f"epoch {row['epoch']:.0f}/{epochs}", f"loss {row['loss']:.4f}", f"accuracy {row['accuracy']:.4f}"]
    if "val_accuracy" in row:
        parts += [f"val loss {row['val_loss']:.4f}", f"val accuracy {row['val_accuracy']:.4f}"]
    parts += [f"rate {row['learning_rate']:.4g}", f"{row['images_per_s']:.0f} images/s", f"{row['seconds']:.0f} s"]
    return "  ".join(parts)
