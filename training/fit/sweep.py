"""The runs of a sweep, each in a folder of its own, so that whoever is given the same number goes on with its run."""

from pathlib import Path

from training.data.load_dataset import DataOptions
from training.fit import trainer
from training.fit.callbacks import Say
from training.fit.resume import latest
from training.recipes.base import Recipe
from training.runs.run_folder import Run


def folder_of(name: str, index: int) -> str:
    """What run number `index` of the sweep `name` is called."""
    return f"{name}-{index}"


def train_one(recipe: Recipe, name: str, runs_dir: Path, data_options: DataOptions, say: Say) -> Run:
    """The finished run of that recipe and data: what is there already, what was interrupted, or a new one.

    Raises TrainingError.
    """
    run = latest(runs_dir, name, recipe, data_options)
    if run is None:
        return trainer.train(recipe, runs_dir, say, data_options, name)
    if run.finished:
        say(f"{run.folder} has finished already")
        return run
    return trainer.resume(run, say, data_options)
