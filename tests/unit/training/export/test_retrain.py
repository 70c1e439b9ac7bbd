"""Retraining fails with an error if the new network cannot be compared with the published version."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.model_versions import write_version
from tests.unit.training.finished_runs import finished_run
from training.atomic_files import write_json
from training.data.datasets.base import ArraySplit, Dataset
from training.data.load_dataset import DEFAULT_OPTIONS
from training.errors import AccuracyRegression, TrainingError
from training.export import retrain as module
from training.export.retrain import newest_version, retrain
from training.export.sources import Source
from training.recipes.base import Recipe
from training.runs.run_folder import Run

RECIPE = Recipe(name="pets", dataset="xo", architecture="xo", validation=4, holdout=4)
CLASSES = tuple(f"class-{number}" for number in range(4))


def dataset(labels: tuple[str, ...] = CLASSES, side: int = 8) -> Dataset:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (24, side, side, 1), np.uint8)
    split = ArraySplit(images, np.arange(24) % 4)
    return Dataset("xo", "X and O", labels, split, split)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns the result of a training that is not executed."""
    finished = finished_run(tmp_path / "runs", RECIPE)
    monkeypatch.setattr(module, "resume_or_train", lambda *_, **__: finished)
    return finished


def retrained(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, data: Dataset, export: Any = None) -> Path:
    source = Source("run pets/1", None, data.labels, data, run)
    monkeypatch.setattr(module, "open_source", lambda *_: source)
    monkeypatch.setattr(module, "options_for", lambda *_, **__: _Options())
    monkeypatch.setattr(module, "replace", lambda options, **changes: changes)
    monkeypatch.setattr(module, "export", export or (lambda *_: pytest.fail("it was exported")))
    return retrain(RECIPE, "pets", tmp_path / "models", tmp_path / "runs", DEFAULT_OPTIONS, 0.0, lambda _: None)


class _Options:
    """The options of an export that is not executed."""


def test_without_a_published_version_the_network_is_published(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = retrained(tmp_path, run, monkeypatch, dataset(), lambda *_: tmp_path / "models/pets/1")
    assert version.name == "1"
    assert '"published": "pets/1"' in run.outcome_path.read_text()


@pytest.mark.parametrize(
    ("data", "reason"),
    [(dataset(tuple("abcd")), "has different labels than xo"), (dataset(side=9), "takes images of another size")],
)
def test_a_version_of_another_kind_is_not_compared(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, data: Dataset, reason: str
) -> None:
    write_version(tmp_path / "models", "pets")
    with pytest.raises(TrainingError, match=f"{reason}.*: publish with convoy-train export"):
        retrained(tmp_path, run, monkeypatch, data)
    assert not run.outcome_path.exists()


def test_a_damaged_version_is_reported_with_advice(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (write_version(tmp_path / "models", "pets") / "manifest.json").write_text("{")
    with pytest.raises(TrainingError, match="manifest"):
        retrained(tmp_path, run, monkeypatch, dataset())


def test_a_rejected_network_leaves_its_outcome(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(*_: object) -> Path:
        raise AccuracyRegression("accuracy 0.1 is less than 0.9")

    with pytest.raises(AccuracyRegression):
        retrained(tmp_path, run, monkeypatch, dataset(), reject)
    assert "less than 0.9" in run.outcome_path.read_text()


def test_a_run_decided_by_another_process_is_not_changed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(run.outcome_path, {"published": "pets/7"})
    with pytest.raises(TrainingError, match=r"has already decided on .*: see its outcome\.json"):
        retrained(tmp_path, run, monkeypatch, dataset())


def test_the_newest_version_is_the_highest_number(tmp_path: Path) -> None:
    assert newest_version(tmp_path, "pets") is None
    for number in (2, 10):
        write_version(tmp_path, "pets", number)
    assert newest_version(tmp_path, "pets") == tmp_path / "pets/10"
