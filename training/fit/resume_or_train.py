"""Finds the last run of a command and resumes it, so that a restarted job continues its work.

A run belongs to the command only if its recipe, data, note and initial weights are the same.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from training.data import datasets
from training.data.load_dataset import DEFAULT_OPTIONS, DataOptions
from training.errors import TrainingError
from training.fit import trainer
from training.fit.callbacks import Log
from training.fit.distributed.data_parallel import SINGLE_PROCESS, DistributedContext
from training.fit.network import initial_weights_info
from training.recipes.base import Recipe
from training.runs import run_folder
from training.runs.run_folder import Run, lock_name

ORIGIN_KEYS = ("folder", "digest", "skip_unreadable")
"""Keys of a run's recorded `origin` that identify a folder's images."""


def never_reuse(run: Run) -> None:
    """Returns None. This is the `reuse_reason` of commands that never reuse a finished run."""


def resume_or_train(
    recipe: Recipe,
    runs_dir: Path,
    log: Log,
    data_options: DataOptions = DEFAULT_OPTIONS,
    name: str | None = None,
    weights: Path | None = None,
    tensorboard: bool = False,
    distributed: DistributedContext = SINGLE_PROCESS,
    reuse_reason: Callable[[Run], str | None] = never_reuse,
) -> Run:
    """Resumes the last run of the same command if it was interrupted, else trains a new run. The parameters are those
    of `train`.

    `reuse_reason` is called if the last run has finished. If it returns a text, the text is logged and that run is
    returned; if it returns None, a new run is trained. Raises TrainingError, and RetryLater while another process runs
    the same command.
    """
    lock = lock_name(runs_dir, name or recipe.name) if distributed.is_main else nullcontext()
    with lock:
        return _resume_or_train(
            recipe, runs_dir, log, data_options, name, weights, tensorboard, distributed, reuse_reason
        )


def _resume_or_train(
    recipe: Recipe,
    runs_dir: Path,
    log: Log,
    data_options: DataOptions,
    name: str | None,
    weights: Path | None,
    tensorboard: bool,
    distributed: DistributedContext,
    reuse_reason: Callable[[Run], str | None],
) -> Run:
    def find() -> Run | None:
        run = last_run(runs_dir, name or recipe.name, recipe, data_options, weights)
        return None if run is None or (run.is_finished and reuse_reason(run) is None) else run

    run = distributed.run_and_compare(find, lambda run: {"run": "a new one" if run is None else run.folder.name})
    if run is None:
        return trainer.train(recipe, runs_dir, log, data_options, name, weights, tensorboard, distributed)
    if run.is_finished:
        log(f"{run.folder} {reuse_reason(run)}")
        return run
    return trainer.resume(run, log, data_options, tensorboard, distributed)


def last_run(
    runs_dir: Path, name: str, recipe: Recipe, data_options: DataOptions, weights: Path | None = None
) -> Run | None:
    """Returns the last run with this name, recipe, data, note and weights, finished or not; None if there is none.

    A folder's images differ if a file was added or removed or its size has changed. Raises TrainingError if the images
    are missing.
    """
    candidates = [run for run in reversed(run_folder.all_runs(runs_dir, name)) if _has_recipe(run, recipe)]
    if not candidates:
        return None
    requested = _requested_inputs(recipe, data_options, weights)
    return next((run for run in candidates if _recorded_inputs(run) == requested), None)


def _has_recipe(run: Run, recipe: Recipe) -> bool:
    try:
        return run.recipe() == recipe
    except TrainingError:  # written by another version of Convoy
        return False


def _requested_inputs(recipe: Recipe, data_options: DataOptions, weights: Path | None) -> dict[str, Any]:
    weights_info = initial_weights_info(recipe, weights)
    return {"data_note": data_options.note, **_origin(recipe, data_options), **weights_info}


def _origin(recipe: Recipe, data_options: DataOptions) -> dict[str, Any]:
    """Returns the values that identify a folder's images. Empty for official files, which are always the same."""
    if recipe.dataset in datasets.DATASETS:
        return {}
    _, listing = datasets.list_dataset(recipe.dataset, data_options.data_dir, data_options.folder)
    return {
        "folder": str(listing.folder.resolve()),
        "digest": listing.digest(),
        "skip_unreadable": data_options.skip_unreadable,
    }


def _recorded_inputs(run: Run) -> dict[str, Any]:
    info = run.info()
    dataset = info["dataset"]
    origin = dataset.get("origin", {})
    origin_info = {key: origin[key] for key in ORIGIN_KEYS if key in origin}
    weights_info = {key: info[key] for key in ("initial_weights",) if key in info}
    return {"data_note": dataset["data_note"], **origin_info, **weights_info}
