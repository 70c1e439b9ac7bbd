"""Retrains a published model, and publishes the result only if its accuracy has not dropped too far."""

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
from training.fit.callbacks import Log
from training.fit.resume_or_train import resume_or_train
from training.recipes.base import Recipe
from training.runs.run_folder import Run, lock_run

RUN_NAME = "{}-retrained"
"""A name of their own, so that an interrupted experiment is never mistaken for one of these runs."""


def retrain(
    recipe: Recipe, name: str, models_dir: Path, runs_dir: Path, data_options: DataOptions, max_drop: float, log: Log
) -> Path:
    """Trains, or resumes an interrupted run, and publishes the result as the next version of `name`.

    The newest version and the new network are measured on the same test images, through the service's own path. Where
    the accuracy drops by more than `max_drop` (of 1), AccuracyRegression is raised and nothing is published. Either
    decision is recorded in the run's folder: a call that was killed before it resumes at the export.
    """
    run = resume_or_train(recipe, runs_dir, log, data_options, RUN_NAME.format(name), reuse_reason=_reuse_reason)
    with lock_run(run):
        if run.outcome_path.exists():
            raise TrainingError(f"Another process has decided on {run.folder} meanwhile: see its outcome.json.")
        try:
            version = _publish(run, name, models_dir, data_options, max_drop, log)
        except AccuracyRegression as error:
            write_json(run.outcome_path, {"worse": str(error)})
            raise
        write_json(run.outcome_path, {"published": f"{name}/{version.name}"})
    return version


def _reuse_reason(run: Run) -> str | None:
    """Only a finished run that was neither published nor rejected is exported without training again."""
    return None if run.outcome_path.exists() else "has finished already, and is neither published nor judged"


def _publish(run: Run, name: str, models_dir: Path, data_options: DataOptions, max_drop: float, log: Log) -> Path:
    source = open_source(run.folder, None, data_options)
    options = options_for(source, name=name, models_dir=models_dir)
    published = newest_version(models_dir, name)
    if published is not None:
        accuracy = measure_accuracy(published, source)
        log(f"test accuracy {accuracy:.4f} of the published {published}, on the same images")
        options = replace(options, min_accuracy=accuracy - max_drop)
    return export(source, options, log)


def newest_version(models_dir: Path, name: str) -> Path | None:
    """The folder of the newest version that is not withdrawn; None where there is none."""
    versions = Repository(models_dir).versions(name)
    return models_dir / name / str(max(versions)) if versions else None


def measure_accuracy(version: Path, source: Source) -> float:
    """A version's accuracy on the test images of `source`. Raises TrainingError where they are not its kind."""
    assert source.dataset is not None, "a run has its data set"
    try:
        manifest = read_manifest(version)
        pipeline = ServingPipeline.from_manifest(version / manifest.variants[0].file, manifest)
    except BrokenVersion as error:
        raise TrainingError(f"{error.message} {error.hint}") from error
    if read_labels(version / manifest.labels.file) != source.dataset.labels:
        raise TrainingError(f"{version} has other labels than {source.dataset.name}: publish by convoy-train export.")
    if manifest.input.shape != source.dataset.test.shape:
        raise TrainingError(f"{version} takes images of another size: publish by convoy-train export.")
    return pipeline.score(source.dataset.test).accuracy
