"""A few real photos in a folder in ImageNet's layout become a published version."""

from pathlib import Path

import pytest

from service.model_store.manifest import read_manifest
from training.data.load_dataset import DataOptions
from training.export.exporter import export, options_for
from training.export.sources import open_source
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.settings import with_settings

SMALL_SETTINGS = {
    "limit": "320",
    "epochs": "3",
    "side_px": "48",
    "progressive_side_px": "32,48",
    "warm_up_epochs": "1",
    "architecture.width": "0.125",
}


@pytest.mark.slow
def test_few_epochs_on_few_photos_learn_and_are_published_as_measured(data_dir: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = with_settings(find_recipe("imagenette-resnet18"), SMALL_SETTINGS)
    run = trainer.train(recipe, tmp_path / "runs", lines.append, DataOptions(data_dir))
    assert run.info()["labels"][0] == "tench"
    assert run.history()[-1]["loss"] < run.history()[0]["loss"]
    source = open_source(run.folder, None, DataOptions(data_dir))
    version = export(source, options_for(source, name="photos", models_dir=tmp_path / "models"), lines.append)
    manifest = read_manifest(version)
    assert manifest.preprocessing == source.dataset.preprocessing
    assert manifest.preprocessing.shorter == 55
    assert manifest.variants[0].parity.images == 1000
    assert "of the 3,925 test images" in (version / "card.md").read_text()
