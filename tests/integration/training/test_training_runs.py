"""Complete runs on generated images: files, reproducibility by the seed, and resuming."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from service.exit_codes import EXIT_RETRY
from training.atomic_files import atomic_write
from training.data.datasets.base import Dataset
from training.data.load_dataset import DataOptions
from training.errors import TrainingError
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.base import Recipe
from training.recipes.settings import with_settings
from training.runs import run_folder
from training.runs.run_folder import Run

EPOCHS = 4
# Dropout, augmentation, momentum, a changing rate and the best epoch could all be wrong in a resumed run.
RECIPE: Recipe = with_settings(
    find_recipe("xo"),
    {
        "architecture": "mlp",
        "architecture.hidden": "32,",
        "architecture.dropout": "0.3",
        "shift_px": "2",
        "flip": "true",
        "schedule": "one_cycle",
        "warm_up_epochs": "1",
        "weight_decay": "1e-3",
        "keep": "best",
        "epochs": str(EPOCHS),
        "limit": "1000",
    },
)
OPTIONS = [
    word
    for key in ("architecture", "shift_px", "flip", "schedule", "warm_up_epochs", "weight_decay", "keep", "limit")
    for word in ("--set", f"{key}={getattr(RECIPE, key)}")
] + ["--epochs", str(EPOCHS), "--set", "architecture.hidden=32,", "--set", "architecture.dropout=0.3"]


def ignore(line: str) -> None:
    """Discards a log line."""


@pytest.fixture(scope="module")
def uninterrupted_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns an uninterrupted run."""
    return trainer.train(RECIPE, tmp_path_factory.mktemp("runs"), ignore, DataOptions(note="drawn by the project"))


def weights(run: Run) -> list[np.ndarray]:
    return keras.models.load_model(run.model_path).get_weights()


def assert_same_run(one: Run, other: Run) -> None:
    for array, other_array in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(array, other_array)
    assert one.metrics()["test"] == other.metrics()["test"]
    timeless = [[{k: v for k, v in row.items() if k not in TIMES} for row in run.history()] for run in (one, other)]
    assert timeless[0] == timeless[1]


TIMES = ("seconds", "images_per_s", "input_stall")


def test_a_run_leaves_all_its_files_and_no_other(uninterrupted_run: Run) -> None:
    assert {path.name for path in uninterrupted_run.folder.iterdir()} == {
        *(".lock", "recipe.json", "run.json", "history.csv", "metrics.json"),
        *("model.keras", "curves.png", "confusion.png"),
    }
    assert uninterrupted_run.recipe() == RECIPE
    info = uninterrupted_run.info()
    assert info["dataset"]["note"] == "drawn by the project"
    assert (info["seed"], info["labels"], info["input_shape"]) == (1, ["X", "O"], [24, 24, 1])
    assert info["libraries"]["keras"] == keras.__version__
    assert [row["epoch"] for row in uninterrupted_run.history()] == [1, 2, 3, 4]
    for name in ("curves.png", "confusion.png"):
        Image.open(uninterrupted_run.folder / name).verify()


def test_the_figures_of_a_run_are_consistent(uninterrupted_run: Run) -> None:
    metrics, history = uninterrupted_run.metrics(), uninterrupted_run.history()
    test = metrics["test"]
    confusion = np.array(test["confusion"])
    assert confusion.sum() == test["images"] == 1000
    assert test["accuracy"] == confusion.trace() / 1000
    assert test["accuracy"] > 0.8
    best = max(row["val_accuracy"] for row in history)
    assert history[metrics["weights_of_epoch"] - 1]["val_accuracy"] == best
    assert metrics["validation"]["accuracy"] == pytest.approx(best, abs=1e-6)
    assert metrics["validation"]["images"] == 500


def test_the_seed_decides_everything(uninterrupted_run: Run, tmp_path: Path) -> None:
    assert_same_run(trainer.train(RECIPE, tmp_path, ignore), uninterrupted_run)
    other = trainer.train(with_settings(RECIPE, {"seed": "2"}), tmp_path, ignore)
    assert any(
        (array != other_array).any()
        for array, other_array in zip(weights(other), weights(uninterrupted_run), strict=True)
    )


@pytest.mark.parametrize("stop_line", ["epoch 1/4", "epoch 3/4"])
def test_a_run_stopped_between_epochs_resumes_to_the_same_result(
    uninterrupted_run: Run, tmp_path: Path, stop_line: str
) -> None:
    def stop(line: str) -> None:
        if line.startswith(stop_line):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(RECIPE, tmp_path, stop)
    interrupted_run = run_folder.latest_unfinished_run(tmp_path, RECIPE.name)
    lines: list[str] = []
    trainer.resume(interrupted_run, lines.append)
    assert f"resumed after {stop_line.removesuffix('/4')}" in lines
    assert_same_run(interrupted_run, uninterrupted_run)


def test_a_finished_run_is_not_resumed(uninterrupted_run: Run) -> None:
    with pytest.raises(TrainingError, match="has finished: there is nothing to resume"):
        trainer.resume(uninterrupted_run, ignore)


def test_a_run_that_another_process_finishes_meanwhile_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes may pass between the first check of the run and its lock, because the images are loaded in between."""
    run = run_folder.start_run(tmp_path, RECIPE, {"dataset": {"data_note": None}})
    run.checkpoint_path.write_bytes(b"of the other process")
    load = trainer.load_dataset.for_resuming

    def while_the_other_finishes(*given: Any) -> Dataset:
        run.metrics_path.write_text("{}")
        run.checkpoint_path.unlink()
        return load(*given)

    monkeypatch.setattr(trainer.load_dataset, "for_resuming", while_the_other_finishes)
    lines: list[str] = []
    with pytest.raises(TrainingError, match="has finished: there is nothing to resume"):
        trainer.resume(run, lines.append)
    assert lines == []
    assert {path.name for path in run.folder.iterdir()} == {".lock", "recipe.json", "run.json", "metrics.json"}
    assert run.metrics_path.read_text() == "{}"


def test_a_loss_that_explodes_stops_the_run_and_keeps_no_broken_checkpoint(tmp_path: Path) -> None:
    recipe = with_settings(RECIPE, {"learning_rate": "1e30", "schedule": "constant", "warm_up_epochs": "0"})
    with pytest.raises(
        TrainingError, match=r"The loss became (nan|inf) in epoch 1, batch \d+, at learning rate 1e\+30"
    ):
        trainer.train(recipe, tmp_path, ignore)
    run = run_folder.latest_unfinished_run(tmp_path, RECIPE.name)
    assert not run.checkpoint_path.exists()
    assert not run.model_path.exists()


def test_without_validation_images_the_last_weights_are_kept(tmp_path: Path) -> None:
    recipe = with_settings(RECIPE, {"validation": "0", "keep": "last", "epochs": "1", "limit": "200"})
    run = trainer.train(recipe, tmp_path, ignore)
    assert "validation" not in run.metrics()
    assert "val_loss" not in run.history()[0]
    assert run.metrics()["weights_of_epoch"] == 1


@contextmanager
def limit_file_size(limit_bytes: int) -> Iterator[None]:
    """Limits the size of files within the context, which has the effect of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_loses_no_finished_epoch(uninterrupted_run: Run, tmp_path: Path) -> None:
    full = limit_file_size(100_000)

    def fill(line: str) -> None:
        if line.startswith("epoch 2/4"):
            full.__enter__()

    try:
        with pytest.raises(TrainingError, match=r"checkpoint\.npz could not be written: .*Free some space.*--resume"):
            trainer.train(RECIPE, tmp_path, fill)
    finally:
        full.__exit__(None, None, None)
    interrupted_run = run_folder.latest_unfinished_run(tmp_path, RECIPE.name)
    assert not list(interrupted_run.folder.glob("*partial*"))
    lines: list[str] = []
    trainer.resume(interrupted_run, lines.append)
    assert "resumed after epoch 2" in lines
    assert_same_run(interrupted_run, uninterrupted_run)


def test_a_disk_without_room_for_the_network_leaves_no_part_of_it(uninterrupted_run: Run, tmp_path: Path) -> None:
    network = keras.models.load_model(uninterrupted_run.model_path)
    path = tmp_path / "model.keras"
    path.write_bytes(b"what was there before")
    with limit_file_size(10_000), pytest.raises(TrainingError, match=r"model\.keras could not be written"):
        atomic_write(path, network.save)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
    assert path.read_bytes() == b"what was there before"


def test_a_run_ends_early_and_is_reported(tmp_path: Path) -> None:
    """With a learning rate near zero, no epoch is better than the first."""
    settings = {"learning_rate": "1e-12", "schedule": "plateau", "plateau_epochs": "1", "patience": "2", "epochs": "9"}
    lines: list[str] = []
    recipe = with_settings(RECIPE, settings | {"warm_up_epochs": "0", "limit": "200"})
    run = trainer.train(recipe, tmp_path, lines.append)
    assert "stopped early: no better validation accuracy for 2 epochs" in lines
    history = run.history()
    assert [row["learning_rate"] for row in history] == pytest.approx([1e-12, 1e-12, 1e-13])
    assert run.metrics()["weights_of_epoch"] == 1


PROGRAM = "from training.cli import main; main()"


def start(runs_dir: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "run", "xo", "--runs-dir", str(runs_dir), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=restore_sigint
    )


def restore_sigint() -> None:
    """Enables SIGINT as in a terminal, because background processes of a script ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def lines_until(process: subprocess.Popen[str], start_of_line: str) -> Iterator[str]:
    for line in process.stdout:
        yield line
        if line.startswith(start_of_line):
            return


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_stopped_process_is_resumed_to_the_same_weights(
    uninterrupted_run: Run, tmp_path: Path, kill: signal.Signals
) -> None:
    """The uninterrupted and the resumed run use different processes, which differ in all seeds except the recipe's
    seed."""
    process = start(tmp_path, *OPTIONS)
    lines = list(lines_until(process, "epoch 2/4"))
    process.send_signal(kill)
    _, errors = process.communicate()
    assert process.returncode == (130 if kill == signal.SIGINT else -kill)
    assert lines[-1].startswith("epoch 2/4"), errors
    if kill == signal.SIGINT:
        assert "Stopped. Resume with: convoy-train run xo --resume" in errors

    output, errors = (resumed := start(tmp_path, "--resume")).communicate()
    assert resumed.returncode == 0, errors
    assert "resumed after epoch" in output
    [folder] = (tmp_path / "xo").iterdir()
    assert_same_run(Run(folder), uninterrupted_run)


@pytest.mark.slow
def test_a_run_that_is_being_trained_is_not_resumed_by_another(tmp_path: Path) -> None:
    process = start(tmp_path, *OPTIONS, "--epochs", "100000")
    list(lines_until(process, "epoch 1/"))
    second = start(tmp_path, "--resume")
    _, errors = second.communicate()
    process.kill()
    process.communicate()
    assert second.returncode == EXIT_RETRY
    assert "is being trained by another process" in errors
