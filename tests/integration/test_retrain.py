"""Retraining: publishes what is no worse, keeps what is better, and goes on where it was killed; and `run --go-on`."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.manifest import read_manifest
from training.cli import main

pytestmark = pytest.mark.slow


def convoy_train(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--runs-dir", str(folder / "runs")], catch_exceptions=False)


def test_what_is_worse_is_not_published(tmp_path: Path) -> None:
    command = ("retrain", "xo", "--name", "toy", "--models-dir", str(tmp_path / "models"), "--epochs")
    first = convoy_train(tmp_path, *command, "4")
    assert first.exit_code == 0, first.output
    assert first.output.splitlines()[-1].endswith("toy/1")
    worse = convoy_train(tmp_path, *command, "1")
    assert worse.exit_code == 3, worse.output
    assert "The published version stays" in worse.output
    forgiven = convoy_train(tmp_path, *command, "1", "--max-drop", "1")
    assert forgiven.exit_code == 0, forgiven.output
    published = {int(path.name): path for path in (tmp_path / "models/toy").iterdir()}
    assert sorted(published) == [1, 2], "nothing half-made of the refused one is left"
    accuracies = [read_manifest(published[number]).variants[0].test_accuracy for number in (1, 2)]
    assert accuracies[0] is not None
    assert accuracies[1] is not None
    assert accuracies[0] > accuracies[1]
    assert f"{accuracies[0]:.4f} of the published" in worse.output


def test_a_job_that_was_killed_goes_on_and_a_new_one_starts(tmp_path: Path) -> None:
    command = ("run", "xo", "--limit", "300", "--epochs", "2", "--go-on")
    assert convoy_train(tmp_path, *command).exit_code == 0
    (run,) = (tmp_path / "runs/xo").iterdir()
    (run / "metrics.json").unlink()  # as if it had been killed before it was done
    again = convoy_train(tmp_path, *command)
    assert again.exit_code == 0, again.output
    assert list((tmp_path / "runs/xo").iterdir()) == [run]
    assert (run / "metrics.json").is_file()
