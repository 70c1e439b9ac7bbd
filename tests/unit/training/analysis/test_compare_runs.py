"""The comparison of runs: results, differences, a plot, and a warning if runs cannot be compared."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from training.analysis.compare_runs import compare
from training.atomic_files import write_json
from training.errors import TrainingError
from training.recipes import RECIPES
from training.runs.run_folder import Run, start_run

MSE, XENT = RECIPES["mnist-mlp-mse"], RECIPES["mnist-mlp-xent"]


def write_finished_run(
    runs_dir: Path,
    recipe=MSE,
    images: int = 10_000,
    accuracy: float = 0.5,
    has_validation: bool = True,
    digest: str | None = "a" * 64,
) -> Path:
    dataset = {"name": recipe.dataset} | ({} if digest is None else {"test_digest": digest})
    run: Run = start_run(runs_dir, recipe, {"dataset": dataset, "parameters": 648_010})
    columns = {"loss": 1.0, "accuracy": 0.5} | ({"val_loss": 1.0, "val_accuracy": 0.5} if has_validation else {})
    run.write_history([{"epoch": epoch, **columns, "images_per_s": 1000.0 * epoch} for epoch in (1, 2)])
    metrics = {"test": {"accuracy": accuracy, "loss": 0.25, "images": images}, "training_seconds": 61.4}
    write_json(run.metrics_path, metrics | ({"validation": {"accuracy": 0.75}} if has_validation else {}))
    return run.folder


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_figures_and_differences(tmp_path: Path) -> None:
    one, other = write_finished_run(tmp_path, MSE), write_finished_run(tmp_path, replace(XENT, seed=7), accuracy=0.975)
    results, differences = compare([one, other], tmp_path / "both.png").split("\n\n")
    header, _, first, second = rows(results)
    assert header == ["run", "epochs", "parameters", "validation", "test", "cross entropy", "images/s", "seconds"]
    assert first == [f"mnist-mlp-mse/{one.name}", "2", "648,010", "75.00%", "50.00%", "0.2500", "1,500", "61"]
    assert second[4] == "97.50%"
    assert len({len(line) for line in results.splitlines()}) == 1
    assert [row[0] for row in rows(differences)[2:]] == ["recipe", "loss", "seed"]
    assert rows(differences)[3] == ["loss", "squared_error", "cross_entropy"]
    Image.open(tmp_path / "both.png").verify()


def test_runs_of_one_recipe_are_alike_and_need_no_validation(tmp_path: Path) -> None:
    folders = [write_finished_run(tmp_path, has_validation=False) for _ in range(3)]
    results, alike = compare(folders, tmp_path / "all.png").split("\n\n")
    assert len(results.splitlines()) == 5
    assert alike == "The recipes are identical."


def test_figures_of_other_images_are_distinguished(tmp_path: Path) -> None:
    text = compare([write_finished_run(tmp_path), write_finished_run(tmp_path, images=100)], tmp_path / "a.png")
    assert text.endswith("(100 of mnist, 10,000 of mnist), so their figures cannot be compared.")


def test_as_many_other_images_are_distinguished_by_their_digest(tmp_path: Path) -> None:
    one, other = write_finished_run(tmp_path), write_finished_run(tmp_path, digest="b" * 64)
    warning = "(10,000 of mnist each), so their figures cannot be compared."
    assert compare([one, other], tmp_path / "a.png").endswith(warning)
    early = write_finished_run(tmp_path, digest=None)
    assert "cannot be compared" not in compare([one, early], tmp_path / "a.png")
    assert compare([one, early, other], tmp_path / "a.png").endswith(warning)


def test_runs_that_differ_in_their_seed_get_a_mean(tmp_path: Path) -> None:
    seeds = {1: 0.97, 2: 0.98, 3: 0.99}
    folders = [write_finished_run(tmp_path, replace(MSE, seed=seed), accuracy=right) for seed, right in seeds.items()]
    folders.append(write_finished_run(tmp_path, replace(MSE, seed=3), accuracy=0.97))  # seed 3 again: 98% on average
    folders.append(write_finished_run(tmp_path, XENT, accuracy=0.5))
    results = compare(folders, tmp_path / "all.png").split("\n\n")[0]
    assert len(rows(results)) == 2 + 5 + 1
    mean = ["mnist-mlp-mse: mean of 3 seeds", "", "", "75.00% ± 0.00%", "97.67% ± 0.58%", "0.2500 ± 0.0000", "", ""]
    assert rows(results)[-1] == mean


def test_seeds_with_other_test_images_have_no_mean(tmp_path: Path) -> None:
    folders = [write_finished_run(tmp_path, replace(MSE, seed=seed), digest=f"{seed}" * 64) for seed in (1, 2)]
    text = compare(folders, tmp_path / "all.png")
    assert "mean of" not in text
    assert "cannot be compared" in text


def test_incomparable_runs_are_reported(tmp_path: Path) -> None:
    one = write_finished_run(tmp_path)
    with pytest.raises(TrainingError, match="needs at least two runs"):
        compare([one, one / ".." / one.name], tmp_path / "a.png")
    with pytest.raises(TrainingError, match=r"has no recipe\.json"):
        compare([one, tmp_path], tmp_path / "a.png")
    unfinished = start_run(tmp_path, MSE, {})
    with pytest.raises(TrainingError, match="has not finished"):
        compare([one, unfinished.folder], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
