"""Training anew what is published already: a run, and its export only where that is no step back."""

from dataclasses import replace
from pathlib import Path

from service.errors import BrokenVersion
from service.model_store.manifest import read_manifest
from service.model_store.repository import Repository
from training.atomic_files import write_json
from training.data.load_dataset import DataOptions
from training.errors import AccuracyRegression, TrainingError
from training.export.exporter import export, options_for
from training.export.labels import read_labels
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source, open_source
from training.fit.callbacks import Say
from training.fit.resume import resume_or_train
from training.recipes.base import Recipe
from training.runs.run_folder import Run, lock_run

RUNS = "{}-retrained"
"""Runs of their own: somebody's interrupted experiment is never taken for one of these."""


def retrain(
    recipe: Recipe, name: str, models_dir: Path, runs_dir: Path, data_options: DataOptions, max_drop: float, say: Say
) -> Path:
    """Trains, or goes on with what was interrupted, and publishes what came out as the next version of `name`.

    The newest version and the new network are measured on the same test images, through the service's own path. The
    new one may be less accurate by `max_drop` (of 1) at most: else Worse is raised, and nothing is published. Either
    decision stands in the run's folder afterwards: a call that was killed before goes on with the export.
    """
    run = resume_or_train(recipe, runs_dir, say, data_options, RUNS.format(name), reuse_reason=_reuse_reason)
    with lock_run(run):
        if run.outcome_path.exists():
            raise TrainingError(f"Another process has decided on {run.folder} meanwhile: see its outcome.json.")
        try:
            version = _publish(run, name, models_dir, data_options, max_drop, say)
        except AccuracyRegression as error:
            write_json(run.outcome_path, {"worse": str(error)})
            raise
        write_json(run.outcome_path, {"published": f"{name}/{version.name}"})
    return version


def _reuse_reason(run: Run) -> str | None:
    """Only a finished run that was neither published nor rejected is exported without training again."""
    return None if run.outcome_path.exists() else "has finished already, and is neither published nor judged"


def _publish(run: Run, name: str, models_dir: Path, data_options: DataOptions, max_drop: float, say: Say) -> Path:
    source = open_source(run.folder, None, data_options)
    options = options_for(source, name=name, models_dir=models_dir)
    published = newest(models_dir, name)
    if published is not None:
        accuracy = accuracy_of(published, source)
        say(f"test accuracy {accuracy:.4f} of the published {published}, on the same images")
        options = replace(options, least_accuracy=accuracy - max_drop)
    return export(source, options, say)


def newest(models_dir: Path, name: str) -> Path | None:
    """The folder of the newest version that is not withdrawn; None where there is none."""
    versions = Repository(models_dir).versions(name)
    return models_dir / name / str(max(versions)) if versions else None


def accuracy_of(version: Path, source: Source) -> float:
    """A version's accuracy on the test images of `source`. Raises TrainingError where they are not its kind."""
    assert source.dataset is not None, "a run has its data set"
    try:
        manifest = read_manifest(version)
        path = ServingPipeline(
            version / manifest.variants[0].file, manifest.input, manifest.preprocessing, manifest.classes
        )
    except BrokenVersion as error:
        raise TrainingError(f"{error.message} {error.hint}") from error
    if read_labels(version / manifest.labels.file) != source.dataset.labels:
        raise TrainingError(f"{version} has other labels than {source.dataset.name}: publish by convoy-train export.")
    if manifest.input.shape != source.dataset.test.shape:
        raise TrainingError(f"{version} takes images of another size: publish by convoy-train export.")
    return path.score(source.dataset.test).accuracy
