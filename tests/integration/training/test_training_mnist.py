"""Real digits become a published version: in a short run of seconds, and with the complete shipped recipe."""

import os
from pathlib import Path

import pytest

from service.model_store.manifest import read_manifest
from tests.reliability import reproducibility
from training.data.load_dataset import DataOptions
from training.export.exporter import export, options_for
from training.export.sources import open_source
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.settings import with_settings


def ignore(line: str) -> None:
    """Discards a log line."""


def train_and_publish(settings: dict[str, str], data_dir: Path, folder: Path) -> float:
    """Returns the published graph's accuracy on all 10,000 test digits, through the service's pipeline."""
    recipe = with_settings(find_recipe("mnist-lenet5"), settings)
    run = trainer.train(recipe, folder / "runs", ignore, DataOptions(data_dir))
    source = open_source(run.folder, None, DataOptions(data_dir))
    version = export(source, options_for(source, name="digits", models_dir=folder / "models"), ignore)
    manifest = read_manifest(version)
    [variant] = manifest.variants
    assert manifest.parameters == 61_706
    assert manifest.preprocessing.background == 0
    assert variant.parity.images == 1000
    assert f"**{variant.test_accuracy:.2%}** of the 10,000 test images" in (version / "card.md").read_text()
    return variant.test_accuracy


def test_a_short_run_on_few_digits_learns(data_dir: Path, tmp_path: Path) -> None:
    assert train_and_publish({"epochs": "4", "limit": "4000"}, data_dir, tmp_path) > 0.95


@pytest.mark.long
def test_the_recipe_reaches_99_2_percent(data_dir: Path, tmp_path: Path) -> None:
    assert train_and_publish({}, data_dir, tmp_path) >= 0.992


@pytest.mark.slow
def test_the_same_seed_in_another_process_gives_the_same_accuracy(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOY_DATA", str(data_dir))
    cores = sorted(os.sched_getaffinity(0))
    one, other = (reproducibility.train("mnist-lenet5", ["epochs=2", "limit=2000"], cores) for _ in range(2))
    assert reproducibility.has_same_accuracy(one, other)
    assert (one.weights == other.weights).all()
