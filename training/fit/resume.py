"""The run that the same command has made before, for jobs that are started again: nothing it was given may differ."""

from pathlib import Path
from typing import Any

from training.data import datasets
from training.data.load_dataset import DataOptions
from training.errors import TrainingError
from training.fit import trainer
from training.recipes.base import Recipe
from training.runs import run_folder
from training.runs.run_folder import Run

ORIGIN = ("folder", "digest", "skip_bad")
"""What tells a folder's images, of all that a run records of them."""


def latest(
    runs_dir: Path, name: str, recipe: Recipe, data_options: DataOptions, weights: Path | None = None
) -> Run | None:
    """The last run of that name, finished or not, with this recipe, data, note and weights; None where there is none.

    Images in a folder count as others once a file has come, gone, or another size. Raises TrainingError when they
    are not there.
    """
    candidates = [run for run in reversed(run_folder.all_of(runs_dir, name)) if _is_of(run, recipe)]
    if not candidates:
        return None
    given = _given(recipe, data_options, weights)
    return next((run for run in candidates if _recorded(run) == given), None)


def _is_of(run: Run, recipe: Recipe) -> bool:
    try:
        return run.recipe() == recipe
    except TrainingError:  # written by another version of Convoy
        return False


def _given(recipe: Recipe, data_options: DataOptions, weights: Path | None) -> dict[str, Any]:
    return {"given_note": data_options.note, **_origin(recipe, data_options), **trainer.start_of(recipe, weights)}


def _origin(recipe: Recipe, data_options: DataOptions) -> dict[str, Any]:
    """Nothing for official files, of which there is one kind only."""
    if recipe.dataset in datasets.DATASETS:
        return {}
    _, listing = datasets.listing_of(recipe.dataset, data_options.data_dir, data_options.folder)
    return {"folder": str(listing.folder.resolve()), "digest": listing.digest(), "skip_bad": data_options.skip_bad}


def _recorded(run: Run) -> dict[str, Any]:
    info = run.info()
    dataset = info["dataset"]
    origin = dataset.get("origin", {})
    start = {"started_from": info["started_from"]} if "started_from" in info else {}
    return {"given_note": dataset["given_note"], **{key: origin[key] for key in ORIGIN if key in origin}, **start}
