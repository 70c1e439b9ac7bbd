"""One training run from start to end: data, network, epochs, the one look at the test set, and the files of the run."""

import inspect
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from training import backend, checkpoint, datasets, plots
from training.architectures import ARCHITECTURES, build, main_tower
from training.architectures.layers import Normalization
from training.batches import EvaluationBatches, Portions, TrainingBatches, portion
from training.callbacks import Bar, Bookkeeping, Position, Say, StopOnDivergence
from training.checkpoint import Progress
from training.datasets.base import Dataset
from training.errors import TrainingError
from training.evaluate import evaluate_network
from training.files import write_json, write_whole
from training.fused import fused
from training.optimizers import make_loss, make_optimizer
from training.recipes.base import Recipe, nearest
from training.runs import Run, sole_writer, start_run
from training.schedules import Schedule


def train(recipe: Recipe, runs_dir: Path, say: Say, data_dir: Path | None = None, note: str | None = None) -> Run:
    """Trains a recipe from the beginning, into a new folder under `runs_dir`.

    `note` is what is to be known of these data files, `say` takes lines for the user. Raises TrainingError.
    """
    dataset = datasets.load(recipe.dataset, data_dir, note)
    backend.make_repeatable(recipe.seed)
    model = _network_to_train(recipe, dataset)
    run = start_run(runs_dir, recipe, _facts(recipe, dataset, model, note))
    _finish(run, recipe, dataset, model, say)
    return run


def resume(run: Run, say: Say, data_dir: Path | None = None) -> Run:
    """Goes on with an interrupted run from its last finished epoch, to the weights it would have had uninterrupted.

    Raises TrainingError when the run has finished, or another process trains it.
    """
    if run.finished:
        raise TrainingError(f"{run.folder} has finished: there is nothing to resume.")
    recipe = run.recipe()
    dataset = datasets.load(recipe.dataset, data_dir, run.info()["dataset"]["given_note"])
    backend.make_repeatable(recipe.seed)
    _finish(run, recipe, dataset, _network_to_train(recipe, dataset), say)
    return run


def build_network(recipe: Recipe, dataset: Dataset) -> keras.Model:
    """The recipe's network for the data set's pictures and classes, as it is trained.

    Raises TrainingError for an unknown network or option, and for pictures that are too small.
    """
    _check_options(recipe)
    *_, channels = dataset.train.shape
    if len(recipe.mean) not in (1, channels):
        raise TrainingError(f"mean and std have {len(recipe.mean)} values; {dataset.name} has {channels} channels.")
    try:
        return build(
            recipe.architecture,
            input_shape=dataset.train.shape,
            classes=len(dataset.labels),
            normalization=Normalization(recipe.mean, recipe.std),
            **recipe.architecture_options,
        )
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{recipe.architecture} cannot be built for {dataset.name}: {error}") from error


def _network_to_train(recipe: Recipe, dataset: Dataset) -> keras.Model:
    with backend.computing_in(recipe.precision):
        return fused(build_network(recipe, dataset))


def _check_options(recipe: Recipe) -> None:
    if recipe.architecture not in ARCHITECTURES:
        return  # the builder has the better message
    known = set(inspect.signature(ARCHITECTURES[recipe.architecture]).parameters)
    known -= {"input_shape", "classes", "normalization"}
    for option in recipe.architecture_options:
        if option not in known:
            raise TrainingError(f"{recipe.architecture} has no option {option!r}: {nearest(option, known)}")


def _finish(run: Run, recipe: Recipe, dataset: Dataset, model: keras.Model, say: Say) -> None:
    with sole_writer(run):
        say(f"run {run.folder}")
        portions = portion(dataset, recipe)
        progress = _fit(run, recipe, dataset, portions, model, say)
        network = _chosen(recipe, dataset, model, progress)
        _conclude(run, dataset, portions, network, progress)
        run.checkpoint_path.unlink(missing_ok=True)
        say(f"test accuracy {run.metrics()['test']['accuracy']:.4f}")


def _fit(run: Run, recipe: Recipe, dataset: Dataset, portions: Portions, model: keras.Model, say: Say) -> Progress:
    classes = len(dataset.labels)
    batches = TrainingBatches(dataset.train, portions.train, classes, recipe)
    validation = EvaluationBatches(dataset.train, portions.validation, classes, recipe.batch_size)
    schedule = Schedule(recipe, len(batches))
    model.compile(make_optimizer(recipe, model, schedule), make_loss(recipe), metrics=["accuracy"])
    progress = checkpoint.restore(run.checkpoint_path, model)
    if progress.epochs:
        say(f"resumed after epoch {progress.epochs}")
    callbacks = [Position(batches), StopOnDivergence(schedule, len(batches))]
    if sys.stderr.isatty():
        callbacks.append(Bar(len(batches), recipe.epochs, sys.stderr))
    callbacks.append(Bookkeeping(run, progress, len(portions.train), recipe.epochs, recipe.keep == "best", say))
    model.fit(
        batches,
        validation_data=validation if len(validation) else None,
        initial_epoch=progress.epochs,
        epochs=recipe.epochs,
        shuffle=False,  # the batches shuffle themselves, repeatably
        verbose=0,
        callbacks=callbacks,
    )
    return progress


def _chosen(recipe: Recipe, dataset: Dataset, model: keras.Model, progress: Progress) -> keras.Model:
    """The network that the run ends with, without optimiser, so that its file needs nothing of ours to load."""
    network = build_network(recipe, dataset)
    network.set_weights(progress.best if recipe.keep == "best" else model.get_weights())
    return main_tower(network)


def _conclude(run: Run, dataset: Dataset, portions: Portions, network: keras.Model, progress: Progress) -> None:
    """Scores the network and writes what the run leaves behind; `metrics.json` comes last and marks it as finished."""
    classes = len(dataset.labels)
    test = evaluate_network(network, dataset.test, portions.test, classes)
    metrics: dict[str, Any] = {"test": test.as_json(), "weights_of_epoch": _weights_of_epoch(progress)}
    if len(portions.validation):
        validation = evaluate_network(network, dataset.train, portions.validation, classes)
        metrics["validation"] = validation.as_json()
    metrics["training_seconds"] = round(sum(row["seconds"] for row in progress.history), 1)
    write_whole(run.model_path, network.save)
    plots.plot_curves(progress.history, run.curves_path)
    plots.plot_confusion(test.confusion, dataset.labels, run.confusion_path)
    write_json(run.metrics_path, metrics)


def _weights_of_epoch(progress: Progress) -> int:
    return progress.epochs if progress.best_epoch is None else progress.best_epoch + 1


def _facts(recipe: Recipe, dataset: Dataset, model: keras.Model, given_note: str | None) -> dict[str, Any]:
    portions = portion(dataset, recipe)
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": {
            "name": dataset.name,
            "title": dataset.title,
            "note": dataset.note,
            "given_note": given_note,
            "training_pictures": len(portions.train),
            "validation_pictures": len(portions.validation),
            "test_pictures": len(portions.test),
        },
        "labels": list(dataset.labels),
        "input_shape": list(dataset.train.shape),
        "parameters": model.count_params(),
        "seed": recipe.seed,
        "libraries": backend.library_versions(),
    }
