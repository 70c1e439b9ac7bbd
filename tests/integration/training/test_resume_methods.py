"""A stopped and resumed run equals an uninterrupted run, for every method with random numbers or a state of its own."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.training.test_training_runs import assert_same_run, ignore
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.settings import with_settings
from training.runs import run_folder

TINY = {"epochs": "2", "limit": "200", "batch_size": "50", "validation": "50", "learning_rate": "0.01"}
MLP = {"architecture": "mlp", "architecture.hidden": "16,"}


@pytest.mark.parametrize(
    "settings",
    [
        MLP | {"randaugment": "2", "random_erasing": "0.5", "class_weight": "auto", "mixup": "0.2"},
        MLP | {"balanced_sampling": "yes", "clip_norm": "0.1", "optimizer": "adamw", "cutmix": "1"},
        pytest.param(
            {"architecture": "cifar-resnet20", "architecture.width": "0.25", "architecture.drop_path": "0.5"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["augmentation and class weights", "balanced sampling and clipping", "drop path"],
)
def test_a_stopped_run_is_resumed_to_the_same_weights(settings: Mapping[str, str], tmp_path: Path) -> None:
    recipe = with_settings(find_recipe("xo"), TINY | settings)
    uninterrupted_run = trainer.train(recipe, tmp_path / "uninterrupted", ignore)

    def stop(line: str) -> None:
        if line.startswith("epoch 1/2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(recipe, tmp_path / "stopped", stop)
    run = run_folder.latest_unfinished_run(tmp_path / "stopped", recipe.name)
    trainer.resume(run, ignore)
    assert_same_run(run, uninterrupted_run)
