"""The last run of a command is found by comparing all of its inputs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import write_image_folder
from training.data import load_dataset
from training.data.load_dataset import DataOptions
from training.errors import RetryLater
from training.fit import trainer
from training.fit.resume_or_train import last_run, never_reuse, resume_or_train
from training.recipes import find_recipe
from training.recipes.base import Recipe
from training.recipes.settings import with_settings
from training.runs.run_folder import Run, start_run

NAME = "mine"
XO = find_recipe("xo")
OWN = Recipe(name="own", dataset="folder", architecture="cifar-resnet20", validation=0.25)
FINE_TUNED = replace(OWN, architecture="keras:ResNet50", side_px=32)


def start_new(
    runs_dir: Path, recipe: Recipe, data_options: DataOptions = load_dataset.DEFAULT_OPTIONS, **more: Any
) -> Run:
    """Creates a run as if `trainer.train` had been killed immediately."""
    origin = {} if data_options.folder is None else dict(load_dataset.for_training(recipe, data_options).origin)
    return start_run(runs_dir, recipe, {"dataset": {"data_note": data_options.note, "origin": origin}, **more}, NAME)


def test_the_last_matching_run_is_found_finished_or_not(tmp_path: Path) -> None:
    assert last_run(tmp_path, NAME, XO, DataOptions()) is None
    runs = [start_new(tmp_path, XO) for _ in range(2)]
    runs[-1].metrics_path.write_text("{}")
    assert last_run(tmp_path, NAME, XO, DataOptions()) == runs[-1]


@pytest.mark.parametrize("settings", [{"epochs": "3"}, {"seed": "7"}, {"architecture.filters": "3,"}])
def test_a_run_of_another_recipe_does_not_match(tmp_path: Path, settings: dict[str, str]) -> None:
    run = start_new(tmp_path, XO)
    start_new(tmp_path, with_settings(XO, settings))
    assert last_run(tmp_path, NAME, XO, DataOptions()) == run
    assert last_run(tmp_path, NAME, find_recipe("mnist-lenet5"), DataOptions()) is None


def test_a_run_with_another_note_does_not_match(tmp_path: Path) -> None:
    run = start_new(tmp_path, XO, DataOptions(note="a copy"))
    assert last_run(tmp_path, NAME, XO, DataOptions()) is None
    assert last_run(tmp_path, NAME, XO, DataOptions(note="a copy")) == run


def test_a_run_on_other_images_does_not_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = (
        write_image_folder(tmp_path / name, "red", "blue", seed=seed) for seed, name in enumerate(("ours", "other"))
    )
    run = start_new(tmp_path, OWN, DataOptions(folder=ours))
    assert last_run(tmp_path, NAME, OWN, DataOptions(folder=other)) is None
    assert last_run(tmp_path, NAME, OWN, DataOptions(folder=ours, skip_unreadable=True)) is None
    monkeypatch.chdir(tmp_path)
    assert last_run(tmp_path, NAME, OWN, DataOptions(folder=Path("ours"), workers=1)) == run
    (ours / "red/000.jpg").unlink()
    assert last_run(tmp_path, NAME, OWN, DataOptions(folder=ours)) is None


def test_a_run_from_other_weights_does_not_match(tmp_path: Path) -> None:
    data_options = DataOptions(folder=write_image_folder(tmp_path / "images", "red", "blue"))
    run = start_new(tmp_path, FINE_TUNED, data_options, initial_weights="theirs.h5")
    assert last_run(tmp_path, NAME, FINE_TUNED, data_options) is None
    assert last_run(tmp_path, NAME, FINE_TUNED, data_options, Path("weights/theirs.h5")) == run


def test_a_run_of_another_version_of_convoy_does_not_match(tmp_path: Path) -> None:
    run = start_new(tmp_path, XO)
    strange = start_new(tmp_path, XO)
    recipe = strange.folder / "recipe.json"
    recipe.write_text(recipe.read_text().replace('"epochs"', '"rounds"'))
    assert last_run(tmp_path, NAME, XO, DataOptions()) == run


def test_without_a_matching_recipe_the_images_are_not_read(tmp_path: Path) -> None:
    start_new(tmp_path, XO)
    assert last_run(tmp_path, NAME, OWN, DataOptions(folder=tmp_path / "none")) is None


class FakeTrainer:
    """Replaces `train` and `resume`, and records which of them was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
        self.calls: list[str] = []
        self._run = run
        monkeypatch.setattr(trainer, "train", self.train)
        monkeypatch.setattr(trainer, "resume", self.resume)

    def train(self, recipe: Recipe, runs_dir: Path, *options: Any) -> Run:
        self.calls.append("train")
        return self._run

    def resume(self, run: Run, *options: Any) -> Run:
        self.calls.append("resume")
        return run


@pytest.mark.parametrize(
    ("state", "reason", "call"),
    [
        ("none", None, "train"),
        ("interrupted", None, "resume"),
        ("interrupted", "is done", "resume"),
        ("finished", None, "train"),
        ("finished", "is done", None),
    ],
)
def test_the_last_run_is_resumed_reused_or_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, reason: str | None, call: str | None
) -> None:
    fake = FakeTrainer(monkeypatch, new := Run(tmp_path / "new"))
    last = None if state == "none" else start_new(tmp_path, XO)
    if last and state == "finished":
        last.metrics_path.write_text("{}")
    lines: list[str] = []
    reuse_reason = never_reuse if reason is None else lambda run: reason
    run = resume_or_train(XO, tmp_path, lines.append, DataOptions(), NAME, reuse_reason=reuse_reason)
    assert run == (new if call == "train" else last)
    assert fake.calls == ([call] if call else [])
    assert lines == ([f"{run.folder} is done"] if call is None else [])


def test_of_two_commands_at_once_the_second_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTrainer(monkeypatch, Run(tmp_path / "new"))

    def resume_or_train_again(*options: Any) -> Run:
        with pytest.raises(RetryLater, match="is being trained by another process"):
            resume_or_train(XO, tmp_path, print, DataOptions(), NAME)
        return fake.train(*options)

    monkeypatch.setattr(trainer, "train", resume_or_train_again)
    resume_or_train(XO, tmp_path, print, DataOptions(), NAME)
    assert fake.calls == ["train"]
