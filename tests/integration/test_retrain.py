"""Retraining: publishes what is no worse, keeps what is better, and goes on where it was killed; and `run --go-on`."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.manifest import read_manifest
from training import runs
from training.cli import main
from training.recipes import find_recipe
from training.recipes.base import with_settings
from training.runs import start_run

pytestmark = pytest.mark.slow

XO = find_recipe("xo")
OFFICIAL = {"dataset": {"given_note": None, "origin": {}}}
"""What a run records of a data set that is no folder, as far as going on needs it."""


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


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (("--epochs", "1"), (1, XO.learning_rate, None)),
        (("--set", "learning_rate=0.02"), (2, 0.02, None)),
        (("--data-note", "a copy"), (2, XO.learning_rate, "a copy")),
    ],
)
def test_a_job_with_other_options_does_not_go_on_with_what_was_killed(
    tmp_path: Path, other: tuple[str, str], expected: tuple[int, float, str | None]
) -> None:
    command = ("run", "xo", "--limit", "300", "--epochs", "2", "--go-on")
    killed = start_run(tmp_path / "runs", with_settings(XO, {"limit": "300", "epochs": "2"}), OFFICIAL)
    done = convoy_train(tmp_path, *command, *other)
    assert done.exit_code == 0, done.output
    assert not killed.finished
    (run,) = (run for run in runs.all_of(tmp_path / "runs", "xo") if run != killed)
    assert run.finished
    recipe, note = run.recipe(), run.info()["dataset"]["given_note"]
    assert (recipe.epochs, recipe.learning_rate, note) == expected
