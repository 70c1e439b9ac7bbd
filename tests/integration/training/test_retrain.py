"""Retraining publishes a network that is not worse, keeps a better version, and resumes after a kill."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.model_store.manifest import read_manifest
from tests.support.images import COLORS, write_image_folder
from training.atomic_files import read_json
from training.cli import main
from training.export import acceptance
from training.export.exporter import ExportOptions, export
from training.export.sources import Source
from training.fit import trainer
from training.fit.callbacks import Log
from training.fit.loop import TrainingContext
from training.recipes import find_recipe
from training.recipes.settings import with_settings
from training.runs import run_folder
from training.runs.run_folder import start_run

pytestmark = pytest.mark.slow

XO = find_recipe("xo")
RECORDED_INFO = {"dataset": {"data_note": None, "origin": {}}}
"""Returns the recorded origin of a data set that is not a folder, as needed for resuming."""


def convoy_train(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--runs-dir", str(folder / "runs")], catch_exceptions=False)


def test_a_worse_network_is_not_published(tmp_path: Path) -> None:
    command = ("retrain", "xo", "--name", "toy", "--models-dir", str(tmp_path / "models"), "--epochs")
    first = convoy_train(tmp_path, *command, "4")
    assert first.exit_code == 0, first.output
    assert first.output.splitlines()[-1].endswith("toy/1")
    slow = ("1", "--set", "learning_rate=1e-6")
    worse = convoy_train(tmp_path, *command, *slow)
    assert worse.exit_code == 3, worse.output
    assert "The published version is kept" in worse.output
    scheduled = convoy_train(tmp_path, *command, *slow, "--exit-zero")
    assert scheduled.exit_code == 0, scheduled.output
    assert "The published version is kept" in scheduled.output
    forgiven = convoy_train(tmp_path, *command, *slow, "--max-drop", "1")
    assert forgiven.exit_code == 0, forgiven.output
    published = {int(path.name): path for path in (tmp_path / "models/toy").iterdir()}
    assert sorted(published) == [1, 2], "nothing of the rejected version is left"
    accuracies = [read_manifest(published[number]).variants[0].test_accuracy for number in (1, 2)]
    assert accuracies[0] is not None
    assert accuracies[1] is not None
    assert accuracies[0] > accuracies[1]
    outcomes = [read_json(run.outcome_path) for run in run_folder.all_runs(tmp_path / "runs", "toy-retrained")]
    kept = ["worse", "decision"]
    assert [list(outcome) for outcome in outcomes] == [["published"], kept, kept, ["published", "decision"]]
    rejected, _, allowed = (outcome["decision"] for outcome in outcomes[1:])
    assert (rejected["part"], rejected["images"], rejected["published"]) == ("validation", XO.validation, "toy/1")
    assert rejected["accuracy"] < rejected["published_accuracy"]
    figure = f"accuracy {rejected['published_accuracy']:.4f} of the published {published[1]} on 500 validation images"
    assert figure in worse.output
    assert allowed["max_drop"] == 1
    assert read_manifest(published[2]).variants[0].held_out_accuracy == allowed["accuracy"]
    assert "of 500 validation images correct, toy/1" in (published[2] / "card.md").read_text()


def test_retraining_needs_a_recipe_or_a_pretrained_network(tmp_path: Path) -> None:
    result = convoy_train(tmp_path, "retrain", "--name", "toy", "--models-dir", str(tmp_path / "models"))
    assert result.exit_code == 2
    assert "Name the recipe or the network that the published version was trained with" in result.output


def test_weights_that_do_not_fit_the_pretrained_network_end_a_retraining(tmp_path: Path) -> None:
    photos = write_image_folder(tmp_path / "photos", "red", "blue", count=20)
    (tmp_path / "weights.h5").write_bytes(b"no weights")
    words = ("--from", "keras:MobileNetV3Small", "--weights", str(tmp_path / "weights.h5"), "--data", str(photos))
    words += ("--set", "validation=4", "--set", "holdout=4")
    result = convoy_train(tmp_path, "retrain", *words, "--name", "toy", "--models-dir", str(tmp_path / "models"))
    assert result.exit_code == 2
    assert "weights.h5" in result.output


class RecordedImages:
    """Records the paths of a folder's images by their use in each training run and each decision."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[dict[str, set[str]]] = []
        self.decisions: list[set[str]] = []
        fit, accuracy = trainer.fit, acceptance.DecisionImages.accuracy

        def record_run(context: TrainingContext, *arguments: Any) -> Any:
            splits, paths = context.splits, context.dataset.split_paths
            parts = {part: {paths[i] for i in getattr(splits, part)} for part in ("train", "validation", "holdout")}
            self.runs.append(parts | {"test": set(context.dataset.origin["test_files"])})
            return fit(context, *arguments)

        def record_decision(images: acceptance.DecisionImages, pipeline: Any) -> float:
            self.decisions.append({images.split._files.paths[index] for index in images.indices})
            return accuracy(images, pipeline)

        monkeypatch.setattr(trainer, "fit", record_run)
        monkeypatch.setattr(acceptance.DecisionImages, "accuracy", record_decision)


def test_another_seed_on_a_grown_folder_tests_and_decides_on_images_on_which_neither_network_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new seed used to draw another test set, of which 77% were training images of the published version."""
    recorded = RecordedImages(monkeypatch)
    photos = write_image_folder(tmp_path / "photos", *COLORS, count=40)
    command = ("retrain", "mlp", "--name", "colors", "--models-dir", str(tmp_path / "models"), "--epochs", "2")
    command = (*command, "--data", str(photos), "--max-drop", "1", "--seed")
    assert convoy_train(tmp_path, *command, "1").exit_code == 0
    for path in write_image_folder(tmp_path / "more", *COLORS, count=20, seed=1).rglob("*.*"):
        path.rename(photos / path.parent.name / f"more-{path.name}")
    done = convoy_train(tmp_path, *command, "9")
    assert done.exit_code == 0, done.output

    first, second = recorded.runs
    assert first["test"] < second["test"]
    assert recorded.decisions == [second["holdout"]] * 2, "of the published version, then of the new one"
    for run in recorded.runs:
        assert not run["train"] & (second["test"] | second["holdout"])
    runs = run_folder.all_runs(tmp_path / "runs", "colors-retrained")
    assert [(run.info()["seed"], run.info()["split_seed"]) for run in runs] == [(1, 1), (9, 1)]
    assert read_json(runs[1].outcome_path)["decision"]["part"] == "holdout"
    provenance = read_manifest(tmp_path / "models/colors/2").provenance
    assert provenance.division is not None
    assert (provenance.seed, provenance.division.seed) == (9, 1)

    (photos / min(second["test"])).unlink()
    refused = convoy_train(tmp_path, *command, "9")
    assert refused.exit_code == 2
    assert f"1 of the {len(second['test'])} test images of colors/2 are missing" in refused.output
    assert len(recorded.runs) == 2, "before anything is trained"


def test_a_job_that_was_killed_continues_and_a_new_one_starts(tmp_path: Path) -> None:
    command = ("run", "xo", "--limit", "300", "--epochs", "2", "--auto-resume")
    assert convoy_train(tmp_path, *command).exit_code == 0
    (run,) = (tmp_path / "runs/xo").glob("[0-9]*")
    (run / "metrics.json").unlink()  # as if the run had been killed before its end
    again = convoy_train(tmp_path, *command)
    assert again.exit_code == 0, again.output
    assert list((tmp_path / "runs/xo").glob("[0-9]*")) == [run]
    assert (run / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (("--epochs", "1"), (1, XO.learning_rate, None)),
        (("--set", "learning_rate=0.02"), (2, 0.02, None)),
        (("--data-note", "a copy"), (2, XO.learning_rate, "a copy")),
    ],
)
def test_a_job_with_other_options_does_not_continue_with_what_was_killed(
    tmp_path: Path, other: tuple[str, str], expected: tuple[int, float, str | None]
) -> None:
    command = ("run", "xo", "--limit", "300", "--epochs", "2", "--auto-resume")
    killed = start_run(tmp_path / "runs", with_settings(XO, {"limit": "300", "epochs": "2"}), RECORDED_INFO)
    result = convoy_train(tmp_path, *command, *other)
    assert result.exit_code == 0, result.output
    assert not killed.is_finished
    (run,) = (run for run in run_folder.all_runs(tmp_path / "runs", "xo") if run != killed)
    assert run.is_finished
    recipe, note = run.recipe(), run.info()["dataset"]["data_note"]
    assert (recipe.epochs, recipe.learning_rate, note) == expected


def test_retraining_continues_with_its_own_recipe_only(tmp_path: Path) -> None:
    """An interrupted run is never published as the result of another recipe, or of other epochs."""
    command = ("retrain", "xo", "--name", "toy", "--models-dir", str(tmp_path / "models"), "--epochs", "1")
    others = [find_recipe("mnist-lenet5"), with_settings(XO, {"epochs": "2"}), with_settings(XO, {"seed": "7"})]
    killed = [start_run(tmp_path / "runs", recipe, RECORDED_INFO, "toy-retrained") for recipe in others]
    result = convoy_train(tmp_path, *command)
    assert result.exit_code == 0, result.output
    assert not any(run.is_finished for run in killed)
    card = (tmp_path / "models/toy/1/card.md").read_text()
    assert "of epoch 1 of 1" in card


class KilledOnce:
    """An export that is killed the first time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, source: Source, options: ExportOptions, log: Log) -> Path:
        self.calls += 1
        if self.calls == 1:
            raise KeyboardInterrupt
        return export(source, options, log)


def test_a_retraining_killed_while_it_exports_is_published_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.export.retrain.export", KilledOnce())
    command = ("retrain", "xo", "--name", "toy", "--models-dir", str(tmp_path / "models"), "--epochs", "1")
    assert convoy_train(tmp_path, *command).exit_code != 0
    again = convoy_train(tmp_path, *command)
    assert again.exit_code == 0, again.output
    assert "epoch 1/1" not in again.output
    assert [path.name for path in (tmp_path / "models/toy").iterdir()] == ["1"]
    (run,) = run_folder.all_runs(tmp_path / "runs", "toy-retrained")
    assert read_json(run.outcome_path) == {"published": "toy/1"}

    anew = convoy_train(tmp_path, *command, "--max-drop", "1")
    assert "epoch 1/1" in anew.output, "a published run is not reused"
