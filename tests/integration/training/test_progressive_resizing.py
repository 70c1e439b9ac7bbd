"""Runs with growing images keep one optimizer and one weight average, and can be resumed."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.integration.training.test_training_runs import assert_same_run, ignore
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.base import Recipe
from training.recipes.settings import with_settings
from training.runs import run_folder
from training.runs.run_folder import Run

RECIPE: Recipe = with_settings(
    find_recipe("xo"),
    {
        "architecture": "resnet9",
        "architecture.width": "0.05",
        "progressive_side_px": "16,24",
        "shift_px": "2",
        "flip": "true",
        "optimizer": "adamw",
        "learning_rate": "0.01",
        "ema_decay": "0.9",
        "epochs": "4",
        "limit": "300",
        "batch_size": "50",
        "validation": "100",
    },
)


@pytest.fixture(scope="module")
def uninterrupted_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trainer.train(RECIPE, tmp_path_factory.mktemp("runs"), ignore)


def test_the_history_names_the_sizes_and_the_kept_network_has_the_last(uninterrupted_run: Run) -> None:
    history = uninterrupted_run.history()
    assert [row["side_px"] for row in history] == [16, 16, 24, 24]
    assert all(row["images_per_s"] > 0 for row in history)
    assert keras.models.load_model(uninterrupted_run.model_path).input_shape == (None, 24, 24, 1)
    assert uninterrupted_run.info()["input_shape"] == [24, 24, 1]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_stopped_before_or_at_the_switch_resumes_to_the_same_result(
    uninterrupted_run: Run, tmp_path: Path, epoch: int
) -> None:
    def stop(line: str) -> None:
        if line.startswith(f"epoch {epoch}/4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(RECIPE, tmp_path, stop)
    run = run_folder.latest_unfinished_run(tmp_path, RECIPE.name)
    lines: list[str] = []
    trainer.resume(run, lines.append)
    assert f"resumed after epoch {epoch}" in lines
    assert_same_run(run, uninterrupted_run)


def test_validation_images_have_the_last_size_from_the_first_epoch(tmp_path: Path) -> None:
    """Validation at the training size would give figures that differ from those of the saved network, which has the
    last size."""
    recipe = with_settings(RECIPE, {"keep": "best", "patience": "1", "learning_rate": "1e-12"})
    lines: list[str] = []
    run = trainer.train(recipe, tmp_path, lines.append)
    first, *_ = history = run.history()
    assert run.metrics()["weights_of_epoch"] == first["epoch"] == 1
    assert run.metrics()["validation"]["loss"] == pytest.approx(first["val_loss"], rel=1e-4)
    assert len(history) == 2, "no further epoch at another size after the patience is exhausted"
    assert "stopped early: no better validation accuracy for 1 epochs" in lines


@pytest.mark.slow
def test_with_jax_a_run_stopped_at_the_switch_resumes_to_the_same_result(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    options = ["-x", "-q", "-k", "stopped and 2 or history", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/jax"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, __file__], env=environment, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()[-4000:]
    assert b"2 passed" in done.stdout
