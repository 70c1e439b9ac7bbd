"""Retrains a published model, and publishes the result only if its accuracy has not dropped too far."""

from dataclasses import replace
from pathlib import Path

from service.model_store.manifest import Manifest, read_manifest
from service.model_store.repository import Repository
from training.atomic_files import write_json
from training.data.datasets.base import Dataset
from training.data.load_dataset import DataOptions
from training.errors import AccuracyRegression, TrainingError, service_errors_as_training_errors
from training.export.acceptance import PART_NAMES, Comparison, select_images
from training.export.exporter import export, options_for
from training.export.labels import read_labels
from training.export.published_split import split_seed_of, with_published_split
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source, open_source
from training.fit.callbacks import Log
from training.fit.resume_or_train import resume_or_train
from training.recipes.base import Recipe
from training.runs.run_folder import Run, lock_run

RUN_NAME = "{}-retrained"
"""Suffix of the runs' folder, so that an interrupted experiment is never mistaken for one of these runs."""


def retrain(
    recipe: Recipe,
    name: str,
    models_dir: Path,
    runs_dir: Path,
    data_options: DataOptions,
    max_drop: float,
    log: Log,
    weights: Path | None = None,
) -> Path:
    """Trains, or resumes an interrupted run, and publishes the result as the next version of `name`.

    Images are split as they were for the newest version, whatever the recipe's seed, so that its training images become
    neither held-out nor test images. Both networks are measured through the service's pipeline on the same held-out
    images, on which neither was trained (`select_images`). If the accuracy drops by more than `max_drop` (0 to 1),
    AccuracyRegression is raised and nothing is published. The test set has no influence, unless no other images are new
    to both networks; `log` and the model card then state this.

    The decision is recorded in the run's folder. If the process was killed, the next call resumes training, or
    continues with the export. `weights` is the file of a pretrained network. Raises TrainingError if a folder has other
    classes than the newest version, or if its images cannot be split as they were.
    """
    published = newest_version(models_dir, name)
    if published is not None:
        manifest = _read_manifest(published)
        labels = read_labels(published / manifest.labels.file)
        recipe = with_published_split(recipe, _version_name(published), labels, manifest.provenance, data_options, log)
    run = resume_or_train(
        recipe, runs_dir, log, data_options, RUN_NAME.format(name), weights, reuse_reason=_reuse_reason
    )
    with lock_run(run):
        if run.outcome_path.exists():
            raise TrainingError(f"Another process has already decided on {run.folder}: see its outcome.json.")
        return _decide(run, name, models_dir, data_options, max_drop, log)


def _reuse_reason(run: Run) -> str | None:
    """Returns the reason to export a finished run without training again: it was neither published nor rejected."""
    return None if run.outcome_path.exists() else "has already finished, and was neither published nor rejected"


def _decide(run: Run, name: str, models_dir: Path, data_options: DataOptions, max_drop: float, log: Log) -> Path:
    source = open_source(run.folder, None, data_options)
    published = newest_version(models_dir, name)
    comparison = None if published is None else _compare(source, published, data_options, max_drop, log)
    options = replace(options_for(source, name=name, models_dir=models_dir), comparison=comparison)
    try:
        version = export(source, options, log)
    except AccuracyRegression as error:
        write_json(run.outcome_path, {"worse": str(error), **_decision_entry(comparison)})
        raise
    write_json(run.outcome_path, {"published": f"{name}/{version.name}", **_decision_entry(comparison)})
    return version


def _decision_entry(comparison: Comparison | None) -> dict[str, object]:
    decision = None if comparison is None else comparison.decision
    return {} if decision is None else {"decision": decision.as_json()}


def _compare(source: Source, published: Path, data_options: DataOptions, max_drop: float, log: Log) -> Comparison:
    """Measures the published version. Raises TrainingError if its input or labels differ from those of `source`."""
    assert source.dataset is not None, "a run has its data set"
    assert source.recipe is not None, "a run has its recipe"
    manifest = _read_manifest(published)
    _check_same_interface(published, manifest, source.dataset)
    skip_unreadable = data_options.skip_unreadable or source.dataset.origin.get("skip_unreadable", False)
    images = select_images(source.dataset, source.recipe, manifest.provenance, skip_unreadable)
    with service_errors_as_training_errors():
        accuracy = images.accuracy(ServingPipeline.from_manifest(published / manifest.variants[0].file, manifest))
    log(f"accuracy {accuracy:.4f} of the published {published} on {len(images.indices):,} {PART_NAMES[images.part]}")
    if images.part == "test":
        log(
            "the decision is based on the test images, because no other images are new to both networks: the test "
            "accuracy of the published network is slightly too high on average"
        )
        if manifest.provenance.dataset != source.dataset.name or split_seed_of(manifest.provenance) is None:
            log(f"{published} does not record its training images: the images of this comparison may be among them")
    return Comparison(images, _version_name(published), accuracy, max_drop)


def newest_version(models_dir: Path, name: str) -> Path | None:
    """Returns the folder of the newest version that is not withdrawn; None if there is none."""
    repository = Repository(models_dir)
    versions = repository.versions(name)
    with service_errors_as_training_errors():
        return repository.version_path(name, max(versions)) if versions else None


def _version_name(version: Path) -> str:
    return f"{version.parent.name}/{version.name}"


def _read_manifest(version: Path) -> Manifest:
    with service_errors_as_training_errors():
        return read_manifest(version)


def _check_same_interface(version: Path, manifest: Manifest, dataset: Dataset) -> None:
    if read_labels(version / manifest.labels.file) != dataset.labels:
        raise TrainingError(f"{version} has different labels than {dataset.name}: publish with convoy-train export.")
    if manifest.input.shape != dataset.test.shape:
        raise TrainingError(f"{version} takes images of another size: publish with convoy-train export.")
