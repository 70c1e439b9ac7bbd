"""Runs of a GPU are packed and unpacked completely; the test set does not select the runs that keep weights."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.gpu import publish, run_archive, train
from tests.gpu.training_jobs import JOBS, TrainingJob, Weights
from training.recipes import find_recipe
from training.recipes.settings import with_settings

TINY = ("limit=64", "validation=16", "epochs=2")


def write_run(root: Path, name: str, number: int, validation: float, test: float) -> Path:
    folder = root / name / f"2026010{number}T000000Z"
    folder.mkdir(parents=True)
    metrics = {"validation": {"accuracy": validation}, "test": {"accuracy": test}, "training_seconds": 90}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "history.csv").write_text("epoch,images_per_s,waiting\n1,100,0.9\n2,30000,0.01\n3,20000,0.03\n")
    (folder / "model.keras").write_bytes(np.random.default_rng(number).bytes(40_000))
    (folder / "checkpoint.npz").write_bytes(b"passing")
    return folder


def test_every_job_is_a_recipe_with_settings_that_it_has() -> None:
    for job in JOBS:
        recipe = with_settings(find_recipe(job.recipe), dict(setting.split("=") for setting in job.settings))
        assert (recipe.dataset == "folder") == bool(job.images)
        assert job.seeds


def test_runs_come_back_whole_from_small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_archive, "PART_BYTES", 16_384)
    one, two = (write_run(tmp_path / "there", "made", number, 0.5, 0.5) for number in (1, 2))
    parts = run_archive.pack([one, two], [two], tmp_path / "there")
    assert len(parts) >= 3
    assert max(part.stat().st_size for part in parts) <= 16_384
    back = run_archive.unpack(tmp_path / "there", tmp_path / "here")
    assert [folder.relative_to(tmp_path / "here") for folder in back] == [
        folder.relative_to(tmp_path / "there") for folder in (one, two)
    ]
    assert {file.name for file in back[0].iterdir()} == {"metrics.json", "history.csv", "model.keras"}
    assert {file.name for file in back[1].iterdir()} == {"metrics.json", "history.csv"}
    assert (back[0] / "model.keras").read_bytes() == (one / "model.keras").read_bytes()


def test_a_folder_without_parts_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no runs\.part"):
        run_archive.unpack(tmp_path, tmp_path)


@pytest.mark.parametrize(("weights", "left_out"), [("all", set()), ("best", {1, 3}), ("none", {1, 2, 3})])
def test_weights_are_kept_by_validation(tmp_path: Path, weights: Weights, left_out: set[int]) -> None:
    job = TrainingJob("made", "xo", (1, 2, 3), weights)
    figures = {1: (0.5, 0.99), 2: (0.7, 0.60), 3: (0.6, 0.98)}
    folders = {number: write_run(tmp_path, "made", number, *figures[number]) for number in figures}
    results = [train.RunResult(job, number, folder) for number, folder in folders.items()]
    assert set(train.without_weights([*results, train.RunResult(job, 4, None, "no time")])) == {
        folders[n] for n in left_out
    }


def test_a_summary_has_figures_past_the_first_epoch_and_what_failed(tmp_path: Path) -> None:
    job = TrainingJob("made", "xo", (1, 2), "all")
    results = [
        train.RunResult(job, 1, write_run(tmp_path, "made", 1, 0.5, 0.9312)),
        train.RunResult(job, 2, None, "no time was left"),
    ]
    _, _, good, bad = train.summary(results).splitlines()
    assert good.startswith("| made | 1 | 93.12% | 50.00% | 3 | 1.5 | 25,000 | 2.0% |")
    assert bad.startswith("| made | 2 | no time was left |")


def test_the_spread_is_of_the_test_accuracies(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "made", number, 0.5, test) for number, test in ((1, 0.93), (2, 0.95))]
    assert publish.accuracy_table(folders).splitlines()[2] == "| made | 2 | 94.00% | 1.41 | 93.00% to 95.00% |"


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    result = train.train(JOBS[0], 1, tmp_path, time.monotonic() + 1)
    assert result.problem == "no time was left"
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_leaves_the_others_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake_train(job: TrainingJob, seed: int, root: Path, end_s: float, changes: tuple[str, ...]) -> train.RunResult:
        if seed == 2:
            return train.RunResult(job, seed, None, "no memory")
        return train.RunResult(job, seed, write_run(root, job.name, seed, 0.5, 0.9))

    monkeypatch.setattr(train, "train", fake_train)
    monkeypatch.setattr("sys.argv", ["train", str(tmp_path / "out"), "--only", "cifar10-resnet20"])
    assert train.main() == 1
    summary = (tmp_path / "out/summary.md").read_text()
    assert summary in capsys.readouterr().out
    assert [line.split(" | ")[2] for line in summary.splitlines()[2:]] == ["90.00%", "no memory", "90.00%"]
    assert len(run_archive.unpack(tmp_path / "out", tmp_path / "here")) == 2


@pytest.mark.slow
def test_a_run_with_jax_is_exported_with_tensorflow_after_its_journey(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    job = TrainingJob("made", "xo", (1,), "all", TINY)
    end_s = time.monotonic() + 600
    results = [train.train(job, 1, tmp_path / "there", end_s)]
    results.append(train.train(job._replace(settings=("epochs=none",)), 2, tmp_path / "there", end_s))
    assert results[0].folder, results[0].problem
    assert "a whole number was expected" in results[1].problem
    run_archive.pack([results[0].folder], [], tmp_path)
    (back,) = run_archive.unpack(tmp_path, tmp_path / "here")
    version = publish.export(back, "made", tmp_path / "models")
    assert json.loads((version / "manifest.json").read_text())["provenance"]["libraries"]["backend"] == "tensorflow"
    assert json.loads((back / "run.json").read_text())["libraries"]["backend"] == "jax"
