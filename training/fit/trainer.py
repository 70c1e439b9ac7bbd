"""Executes a training run: data, network, epochs, the single evaluation on the test set, and the run's files."""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training import keras_setup
from training.architectures import keras_applications, without_auxiliary_classifiers
from training.atomic_files import atomic_write, write_json
from training.data import load_dataset
from training.data.batches import TrainingBatches
from training.data.datasets.base import Dataset
from training.data.load_dataset import DEFAULT_OPTIONS, DataOptions
from training.data.splits import SplitIndices, split_indices
from training.errors import TrainingError
from training.fit.callbacks import Log
from training.fit.distributed.consistency import run_invariants
from training.fit.distributed.data_parallel import SINGLE_PROCESS, DistributedContext
from training.fit.ema import AveragedWeights, estimate_statistics
from training.fit.fused_batchnorm import fuse_batchnorm
from training.fit.loop import TrainingContext, fit
from training.fit.network import build_for_training, build_network, initial_weights_info
from training.fit.scores import evaluate_network
from training.recipes.base import APPLICATION_PREFIX, Recipe
from training.runs import checkpoint, plots
from training.runs.checkpoint import Arrays, TrainingProgress
from training.runs.run_folder import Run, check_run_name, lock_run, start_run


def train(
    recipe: Recipe,
    runs_dir: Path,
    log: Log,
    data_options: DataOptions = DEFAULT_OPTIONS,
    name: str | None = None,
    weights: Path | None = None,
    tensorboard: bool = False,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> Run:
    """Trains a recipe from the beginning, in a new folder under `runs_dir/name` (None: the recipe's name).

    `log` prints lines for the user. A Keras Applications network starts from the file `weights`, or else from weights
    that Keras downloads. All processes of a `distributed` run must use the same arguments. Raises TrainingError.
    """
    weights_info = initial_weights_info(recipe, weights)
    check_run_name(name or recipe.name)
    dataset = distributed.run_and_compare(
        lambda: load_dataset.for_training(recipe, data_options), lambda dataset: run_invariants(recipe, dataset)
    )
    model = build_for_training(recipe, dataset, distributed, weights or keras_applications.IMAGENET_WEIGHTS)
    info = _run_info(recipe, dataset, model, data_options.note) | weights_info | {"distributed": distributed.describe()}

    def save_initial_weights(run: Run) -> None:
        if weights_info:  # so that resuming does not need the file or the download again
            checkpoint.save(run.checkpoint_path, model, TrainingProgress())

    def start() -> str:
        return str(start_run(runs_dir, recipe, info, name, save_initial_weights).folder)

    run = Run(Path(distributed.broadcast(start)))
    splits = split_indices(dataset, recipe)
    _fit_and_save(TrainingContext(run, recipe, dataset, splits, log, tensorboard, distributed), model)
    return run


def resume(
    run: Run,
    log: Log,
    data_options: DataOptions = DEFAULT_OPTIONS,
    tensorboard: bool = False,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> Run:
    """Resumes an interrupted run after its last finished epoch. The final weights equal those of an uninterrupted run.

    Raises TrainingError if the run has finished, if its initial weights are missing, and if another process trains it.
    """
    _check_unfinished(run)
    recipe = run.recipe()
    dataset = distributed.run_and_compare(
        lambda: load_dataset.for_resuming(run, data_options), lambda dataset: run_invariants(recipe, dataset, run)
    )
    model = build_for_training(recipe, dataset, distributed)
    splits = split_indices(dataset, recipe)
    _fit_and_save(TrainingContext(run, recipe, dataset, splits, log, tensorboard, distributed), model)
    return run


def _fit_and_save(context: TrainingContext, model: keras.Model) -> None:
    with _lock_unfinished(context.run) if context.distributed.is_main else nullcontext():
        _log_start(context)
        if context.distributed.is_main:
            context.run.record_machine()
        with context.distributed.scope():
            averages = _averages(context)
            progress = fit(context, model, averages)
            weights = _final_weights(model, progress, averages)
        if context.distributed.is_main:
            _finalize_run(context, weights, progress)
        context.distributed.barrier()  # no process exits before the run is complete


@contextmanager
def _lock_unfinished(run: Run) -> Iterator[None]:
    """Holds the run's lock and checks again: another process may have finished the run while this one loaded images."""
    with lock_run(run):
        _check_unfinished(run)
        yield


def _check_unfinished(run: Run) -> None:
    has_lost_weights = "initial_weights" in run.info() and not run.checkpoint_path.exists()
    if run.is_finished:  # checked after the lookup of the checkpoint, which a finishing run deletes
        raise TrainingError(f"{run.folder} has finished: there is nothing to resume.")
    if has_lost_weights:
        raise TrainingError(f"The initial weights of {run.folder} are missing (checkpoint.npz): start a new run.")


def _log_start(context: TrainingContext) -> None:
    context.log(f"run {context.run.folder}")
    if skipped := context.dataset.origin.get("skipped"):
        context.log(f"unreadable images skipped: {len(skipped):,}, listed in run.json")
    splits = context.splits
    context.log(
        f"{len(context.dataset.labels):,} classes; images: {len(splits.train):,} for training, "
        f"{len(splits.validation):,} for validation, {len(splits.holdout):,} held out, "
        f"{len(splits.test):,} for testing"
    )
    if devices := context.distributed.describe():
        context.log(f"processes: {devices['processes']}, devices: {devices['devices']} ({devices['device']})")
        if dropped := len(context.splits.train) - context.distributed.shard.divisible_count(len(context.splits.train)):
            context.log(f"images dropped per epoch (different ones in each epoch) to spread the rest evenly: {dropped}")


def _averages(context: TrainingContext) -> AveragedWeights:
    """Returns the averaged weights. The main process estimates their batch statistics on whole batches, for all
    processes."""
    recipe, dataset = context.recipe, context.dataset

    @functools.cache
    def network_and_batches() -> tuple[keras.Model, TrainingBatches]:
        at_full_size = replace(recipe, progressive_side_px=())
        batches = TrainingBatches(
            dataset.train, context.splits.train, len(dataset.labels), at_full_size, dataset.workers
        )
        network = fuse_batchnorm(build_network(recipe, dataset))
        if recipe.architecture.startswith(APPLICATION_PREFIX):
            keras_applications.freeze(network, frozen=False)  # keeps the batch statistics from ImageNet
        return network, batches

    def estimate(weights: Arrays) -> str:
        with context.distributed.local_scope(), keras_setup.dtype_policy(recipe.precision):
            network, batches = network_and_batches()
            return json.dumps([array.tolist() for array in estimate_statistics(network, weights, batches)])

    def estimate_for_all(weights: Arrays) -> Arrays:
        text = context.distributed.broadcast(lambda: estimate(weights))
        return [np.array(values, np.float32) for values in json.loads(text)]

    return AveragedWeights(estimate_for_all)


def _final_weights(model: keras.Model, progress: TrainingProgress, averages: AveragedWeights) -> Arrays:
    """Returns the weights that the run keeps."""
    if progress.best:
        return progress.best
    with averages.apply_to(model):
        weights: Arrays = model.get_weights()
    return weights


def _finalize_run(context: TrainingContext, weights: Arrays, progress: TrainingProgress) -> None:
    """Writes the run's results, and the network without its optimizer, so that the network loads without Convoy's
    code."""
    network = build_network(context.recipe, context.dataset)
    network.set_weights(weights)
    _write_results(context.run, context.dataset, context.splits, without_auxiliary_classifiers(network), progress)
    context.run.checkpoint_path.unlink(missing_ok=True)
    context.log(f"test accuracy {context.run.metrics()['test']['accuracy']:.4f}")


def _write_results(
    run: Run, dataset: Dataset, splits: SplitIndices, network: keras.Model, progress: TrainingProgress
) -> None:
    """Scores the network and writes the run's results. `metrics.json` is written last and marks the run as finished."""
    classes = len(dataset.labels)
    test = evaluate_network(network, dataset.test, splits.test, classes)
    metrics: dict[str, Any] = {"test": test.as_json(), "weights_of_epoch": _weights_of_epoch(progress)}
    if len(splits.validation):
        validation = evaluate_network(network, dataset.train, splits.validation, classes)
        metrics["validation"] = validation.as_json()
    metrics["training_seconds"] = round(sum(row["seconds"] for row in progress.history), 1)
    atomic_write(run.model_path, network.save)
    plots.plot_curves(progress.history, run.curves_path)
    plots.plot_confusion(test.confusion, dataset.labels, run.confusion_path)
    write_json(run.metrics_path, metrics)


def _weights_of_epoch(progress: TrainingProgress) -> int:
    return progress.epochs if progress.best_epoch is None else progress.best_epoch + 1


def _run_info(recipe: Recipe, dataset: Dataset, model: keras.Model, data_note: str | None) -> dict[str, Any]:
    splits = split_indices(dataset, recipe)
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": {
            "name": dataset.name,
            "title": dataset.title,
            "note": dataset.note,
            "data_note": data_note,
            "training_images": len(splits.train),
            "validation_images": len(splits.validation),
            "holdout_images": len(splits.holdout),
            "test_images": len(splits.test),
            "test_digest": dataset.test.digest(splits.test),
            "origin": dict(dataset.origin),
        },
        "labels": list(dataset.labels),
        "input_shape": list(dataset.train.shape),
        "parameters": model.count_params(),
        "seed": recipe.seed,
        "split_seed": recipe.effective_split_seed,
        "libraries": keras_setup.library_versions(),
    }
