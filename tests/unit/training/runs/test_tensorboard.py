"""TensorBoard's event files: TensorFlow's reader, which checks all checksums, reads each epoch once."""

import resource
import signal
from pathlib import Path

import pytest
import tensorflow

from training.errors import RetryLater
from training.runs.run_folder import HistoryRow
from training.runs.tensorboard import EventFile


def row(epoch: int) -> HistoryRow:
    return {"epoch": float(epoch), "loss": 1 / epoch, "val_accuracy": 0.125 * epoch, "learning_rate": 0.1}


def read(folder: Path) -> dict[int, dict[str, float]]:
    """Returns the scalars by step."""
    [path] = folder.iterdir()
    version, *events = tensorflow.compat.v1.train.summary_iterator(str(path))
    assert version.file_version == "brain.Event:2"
    assert len({event.step for event in events}) == len(events)
    assert all(event.wall_time > 1.7e9 for event in events)
    return {event.step: {value.tag: value.simple_value for value in event.summary.value} for event in events}


def test_every_epoch_is_a_step_with_its_scalars(tmp_path: Path) -> None:
    events = EventFile(tmp_path / "tensorboard", [])
    for epoch in (1, 2, 300):
        events.append(row(epoch))
    scalars_by_step = read(tmp_path / "tensorboard")
    assert list(scalars_by_step) == [1, 2, 300]
    expected = {"loss/training": 1 / 300, "accuracy/validation": 37.5, "learning_rate": 0.1}
    assert scalars_by_step[300] == pytest.approx(expected, rel=1e-6)


def test_a_resumed_run_has_no_epoch_twice(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard"
    for finished_epochs in (0, 2, 2, 1):
        events = EventFile(folder, [row(epoch) for epoch in range(1, finished_epochs + 1)])
        events.append(row(finished_epochs + 1))
    assert list(read(folder)) == [1, 2]


def test_an_epoch_that_cannot_be_written_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    events = EventFile(tmp_path / "tensorboard", [])
    [path] = (tmp_path / "tensorboard").iterdir()
    previous_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with pytest.raises(RetryLater, match=f"{path.name} could not be written: File too large"):
            events.append(row(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous_handler)
