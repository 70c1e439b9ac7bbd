"""Writes event files for TensorBoard with TensorFlow's writer, one step per epoch."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.atomic_files import atomic_write
from training.errors import RetryLater
from training.runs.run_folder import HistoryRow

FILE_VERSION = "brain.Event:2"
TAGS = {
    "loss": "loss/training",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/training",
    "val_accuracy": "accuracy/validation",
}
"""TensorBoard tags of the history columns that come in pairs: TensorBoard shows tags with the same prefix in one
section. Every other column is its own tag."""


class EventFile:
    """The event file of a run in `folder`. TensorBoard follows it while it grows."""

    def __init__(self, folder: Path, history: Sequence[HistoryRow]) -> None:
        """Starts a new file that contains the epochs in `history`. It replaces the files of a run before it was
        resumed."""
        folder.mkdir(exist_ok=True)
        previous_files = list(folder.glob("events.out.tfevents.*"))
        self._path = folder / f"events.out.tfevents.{len(history):06}"  # TensorBoard reads the last file by name
        atomic_write(self._path, lambda temporary: self._start(temporary, history))
        for path in previous_files:
            if path != self._path:
                path.unlink(missing_ok=True)

    def append(self, row: HistoryRow) -> None:
        """Appends an epoch. Raises RetryLater if that fails, for example on a full disk."""
        import tensorflow

        try:
            self._writer.write(_scalar_event(row))
            self._writer.flush()
        except tensorflow.errors.OpError as error:
            reason = error.message.rpartition("; ")[2]  # without the temporary path
            raise RetryLater(f"{self._path} could not be written: {reason}.") from error

    def _start(self, path: Path, history: Sequence[HistoryRow]) -> None:
        """Opens the file at `path`, which stays open when it is renamed, and writes `history`."""
        import tensorflow  # takes seconds, and only runs with --tensorboard need it

        self._writer: Any = tensorflow.io.TFRecordWriter(str(path))
        self._writer.write(_event(file_version=FILE_VERSION))
        for row in history:
            self._writer.write(_scalar_event(row))
        self._writer.flush()


def _scalar_event(row: HistoryRow) -> bytes:
    scalars = [
        {"tag": TAGS.get(column, column), "simple_value": value} for column, value in row.items() if column != "epoch"
    ]
    return _event(step=int(row["epoch"]), summary={"value": scalars})


def _event(**fields: Any) -> bytes:
    import tensorflow

    return bytes(tensorflow.compat.v1.Event(wall_time=time.time(), **fields).SerializeToString())
