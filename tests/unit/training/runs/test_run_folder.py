"""Run folders: each run has a new folder, interrupted runs are found, and only one process writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import RetryLater, TrainingError
from training.recipes import RECIPES
from training.runs import run_folder
from training.runs.run_folder import Run, latest_unfinished_run, lock_run, open_run, start_run

RECIPE = RECIPES["mnist-lenet5"]


def test_a_run_knows_its_recipe_and_facts(tmp_path: Path) -> None:
    run = start_run(tmp_path, RECIPE, {"seed": 1})
    assert run.folder.parent == tmp_path / "mnist-lenet5"
    assert open_run(run.folder).recipe() == RECIPE
    assert run.info() == {"seed": 1}
    assert not run.is_finished


def test_runs_of_the_same_second_get_folders_of_their_own_in_order(tmp_path: Path) -> None:
    runs = [start_run(tmp_path, RECIPE, {}) for _ in range(4)]
    assert len({run.folder for run in runs}) == 4
    assert latest_unfinished_run(tmp_path, RECIPE.name).folder == runs[-1].folder


def test_the_last_unfinished_run_is_found(tmp_path: Path) -> None:
    first, second, third = (start_run(tmp_path, RECIPE, {}) for _ in range(3))
    third.metrics_path.write_text("{}")
    assert latest_unfinished_run(tmp_path, RECIPE.name).folder == second.folder
    for run in (first, second):
        run.metrics_path.write_text("{}")
    with pytest.raises(TrainingError, match="no interrupted run"):
        latest_unfinished_run(tmp_path, RECIPE.name)


def test_a_folder_without_recipe_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"has no recipe\.json"):
        open_run(tmp_path)


def test_history_is_read_as_written(tmp_path: Path) -> None:
    run = Run(tmp_path)
    rows = [{"epoch": 1.0, "loss": 0.1 + 0.2, "val_accuracy": 1 / 3}, {"epoch": 2.0, "loss": 1e-9, "val_accuracy": 1.0}]
    run.write_history(rows)
    assert run.history() == rows
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == "epoch,loss,val_accuracy"


def test_history_takes_a_column_that_came_with_a_later_epoch(tmp_path: Path) -> None:
    """A run that a newer version of Convoy resumes can record additional columns."""
    run = Run(tmp_path)
    rows = [{"epoch": 1.0, "loss": 2.5}, {"epoch": 2.0, "loss": 1.5, "input_stall": 0.25}]
    run.write_history(rows)
    assert run.history() == rows
    assert (tmp_path / "history.csv").read_text().splitlines() == ["epoch,loss,input_stall", "1.0,2.5,", "2.0,1.5,0.25"]


def test_a_path_that_cannot_hold_runs_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot hold a run"):
        start_run(tmp_path / "file", RECIPE, {})


def test_a_second_writer_is_rejected_until_the_first_has_gone(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from training.runs.run_folder import Run, lock_run\n"
        "with lock_run(Run(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RetryLater, match="being trained by another process"), lock_run(Run(tmp_path)):
        pass
    holder.kill()
    holder.communicate()
    with lock_run(Run(tmp_path)):
        pass


def test_a_run_records_the_machine_of_each_of_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start_run(tmp_path, RECIPE, {"seed": 1})
    monkeypatch.setattr(run_folder, "usable_cores", lambda: 2)
    monkeypatch.setattr(run_folder, "processor_name", lambda: "Xeon")
    run.record_machine()
    run.write_history([{"epoch": 1.0}, {"epoch": 2.0}])
    monkeypatch.setattr(run_folder, "processor_name", lambda: "EPYC")
    run.record_machine()
    assert run.info() == {
        "seed": 1,
        "machines": [
            {"first_epoch": 1, "processor": "Xeon", "cores": 2},
            {"first_epoch": 3, "processor": "EPYC", "cores": 2},
        ],
    }


def test_a_run_has_the_name_that_was_given_to_it(tmp_path: Path) -> None:
    assert start_run(tmp_path, RECIPE, {}, "pets").name == "pets"
    assert start_run(tmp_path, RECIPE, {}).name == RECIPE.name
