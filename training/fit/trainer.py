"""One training run from start to end: data, network, epochs, the one look at the test set, and the files of the run."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from training import keras_setup
from training.architectures import ARCHITECTURES, build, keras_applications, main_tower
from training.architectures.layers import Normalization
from training.atomic_files import atomic_write, write_json
from training.data import load_dataset
from training.data.datasets.base import Dataset
from training.data.device_augment import with_device_augmentation
from training.data.load_dataset import DEFAULT, DataOptions
from training.data.splits import SplitIndices, split_indices
from training.errors import TrainingError
from training.fit.callbacks import Say
from training.fit.distributed.consistency import run_invariants
from training.fit.distributed.data_parallel import SINGLE_PROCESS, DistributedContext
from training.fit.ema import averaged
from training.fit.fused_batchnorm import fused
from training.fit.loop import TrainingContext, fit
from training.fit.scores import evaluate_network
from training.recipes.base import APPLICATION, Recipe, nearest
from training.runs import checkpoint, plots
from training.runs.checkpoint import Arrays, Progress
from training.runs.run_folder import Run, check_name, lock_run, start_run

NO_OPTIONS = {"architecture", "input_shape", "classes", "normalization", "weights"}
"""Parameters of builders that the data set and the rest of the recipe decide."""


def train(
    recipe: Recipe,
    runs_dir: Path,
    say: Say,
    data_options: DataOptions = DEFAULT,
    name: str | None = None,
    weights: Path | None = None,
    tensorboard: bool = False,
    context: DistributedContext = SINGLE_PROCESS,
) -> Run:
    """Trains a recipe from the beginning, into a new folder under `runs_dir/name` (None: the recipe's name).

    `data_options` is where the data lie, `say` takes lines for the user. A network of Keras' applications starts from
    the file `weights`, or else from those that Keras downloads. All processes of a `context` call this alike. Raises
    TrainingError.
    """
    started_from = start_of(recipe, weights)
    check_name(name or recipe.name)
    dataset = context.run_and_compare(
        lambda: load_dataset.for_training(recipe, data_options), lambda dataset: run_invariants(recipe, dataset)
    )
    model = _network_to_train(recipe, dataset, context, weights or keras_applications.DOWNLOADED)
    info = _facts(recipe, dataset, model, data_options.note) | started_from | {"distributed": context.describe()}

    def save_start(run: Run) -> None:
        if started_from:  # so that going on needs neither the file nor the download again
            checkpoint.save(run.checkpoint_path, model, Progress())

    run = Run(Path(context.broadcast(lambda: str(start_run(runs_dir, recipe, info, name, save_start).folder))))
    _finish(TrainingContext(run, recipe, dataset, split_indices(dataset, recipe), say, tensorboard, context), model)
    return run


def resume(
    run: Run,
    say: Say,
    data_options: DataOptions = DEFAULT,
    tensorboard: bool = False,
    context: DistributedContext = SINGLE_PROCESS,
) -> Run:
    """Goes on with an interrupted run from its last finished epoch, to the weights it would have had uninterrupted.

    Raises TrainingError when the run has finished, has lost the weights that it started from, or another process
    trains it.
    """
    _check_unfinished(run)
    recipe = run.recipe()
    dataset = context.run_and_compare(
        lambda: load_dataset.for_resuming(run, data_options), lambda dataset: run_invariants(recipe, dataset, run)
    )
    model = _network_to_train(recipe, dataset, context)
    _finish(TrainingContext(run, recipe, dataset, split_indices(dataset, recipe), say, tensorboard, context), model)
    return run


def build_network(recipe: Recipe, dataset: Dataset, weights: str | Path | None = None) -> keras.Model:
    """The recipe's network for the data set's images and classes, as it is trained.

    `weights` is where those of Keras' applications come from. Raises TrainingError for an unknown network or option,
    and for images that are too small.
    """
    _check_options(recipe)
    *_, channels = dataset.train.shape
    if len(recipe.mean) not in (1, channels):
        raise TrainingError(f"mean and std have {len(recipe.mean)} values; {dataset.name} has {channels} channels.")
    try:
        if recipe.architecture.startswith(APPLICATION):
            classes = len(dataset.labels)
            options = recipe.architecture_options
            return keras_applications.build(recipe.architecture, dataset.train.shape, classes, weights, **options)
        return build(
            recipe.architecture,
            input_shape=dataset.train.shape,
            classes=len(dataset.labels),
            normalization=Normalization(recipe.mean, recipe.std),
            **recipe.architecture_options,
        )
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{recipe.architecture} cannot be built for {dataset.name}: {error}") from error


def _network_to_train(
    recipe: Recipe, dataset: Dataset, context: DistributedContext, weights: str | Path | None = None
) -> keras.Model:
    keras_setup.make_repeatable(recipe.seed)
    context.initialize()
    if recipe.on_device and context.describe():
        raise TrainingError("on_device=true is for one device: set on_device=false, or leave --distributed out.")
    splits = split_indices(dataset, recipe)
    context.shard.check(recipe.batch_size, training=len(splits.train), validation=len(splits.validation))
    with context.scope(), keras_setup.computing_in(recipe.precision):
        network = fused(build_network(recipe, dataset, weights))
        return with_device_augmentation(network, recipe) if recipe.on_device else network


def start_of(recipe: Recipe, weights: Path | None) -> dict[str, Any]:
    """What the run records of weights that others have trained; no folder of this machine."""
    if not recipe.architecture.startswith(APPLICATION):
        if weights is not None:
            raise TrainingError(f"--weights is for networks of Keras' applications; {recipe.name} starts from nothing.")
        return {}
    return {"started_from": keras_applications.DOWNLOADED if weights is None else weights.name}


def _check_options(recipe: Recipe) -> None:
    if recipe.architecture.startswith(APPLICATION):
        builder = keras_applications.build
    elif recipe.architecture in ARCHITECTURES:
        builder = ARCHITECTURES[recipe.architecture]
    else:
        return  # the builder has the better message
    known = set(inspect.signature(builder).parameters) - NO_OPTIONS
    for option in recipe.architecture_options:
        if option not in known:
            raise TrainingError(f"{recipe.architecture} has no option {option!r}: {nearest(option, known)}")


def _finish(job: TrainingContext, model: keras.Model) -> None:
    with _held(job.run) if job.context.is_main else nullcontext():
        _announce(job)
        with job.context.scope():
            progress = fit(job, model)
            weights = _chosen(model, progress)
        if job.context.is_main:
            _conclude(job, weights, progress)
        job.context.barrier()  # no process exits before the run is complete


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """The run's lock. Whoever had it before may have finished the run while we loaded its images."""
    with lock_run(run):
        _check_unfinished(run)
        yield


def _check_unfinished(run: Run) -> None:
    lost = "started_from" in run.info() and not run.checkpoint_path.exists()
    if run.finished:  # looked at second: the end of a run takes its checkpoint away
        raise TrainingError(f"{run.folder} has finished: there is nothing to resume.")
    if lost:
        raise TrainingError(
            f"{run.folder} has lost the weights that it started from (checkpoint.npz): start a new run."
        )


def _announce(job: TrainingContext) -> None:
    job.say(f"run {job.run.folder}")
    if skipped := job.dataset.origin.get("skipped"):
        job.say(f"images left out because they cannot be read: {len(skipped):,}, named in run.json")
    if context := job.context.describe():
        job.say(f"processes: {context['processes']}, devices: {context['devices']} ({context['device']})")
        if uneven := len(job.splits.train) - job.context.shard.divisible_count(len(job.splits.train)):
            job.say(f"images left out of each epoch, other ones every time, to share the rest evenly: {uneven}")


def _chosen(model: keras.Model, progress: Progress) -> Arrays:
    """The weights that the run ends with."""
    if progress.best:
        return progress.best
    with averaged(model):
        return model.get_weights()


def _conclude(job: TrainingContext, weights: Arrays, progress: Progress) -> None:
    """The run's network without optimiser, so that its file needs nothing of ours to load, and what is known of it."""
    whole = build_network(job.recipe, job.dataset)
    whole.set_weights(weights)
    _write_results(job.run, job.dataset, job.splits, main_tower(whole), progress)
    job.run.checkpoint_path.unlink(missing_ok=True)
    job.say(f"test accuracy {job.run.metrics()['test']['accuracy']:.4f}")


def _write_results(run: Run, dataset: Dataset, splits: SplitIndices, network: keras.Model, progress: Progress) -> None:
    """Scores the network and writes what the run leaves behind; `metrics.json` comes last and marks it as finished."""
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


def _weights_of_epoch(progress: Progress) -> int:
    return progress.epochs if progress.best_epoch is None else progress.best_epoch + 1


def _facts(recipe: Recipe, dataset: Dataset, model: keras.Model, given_note: str | None) -> dict[str, Any]:
    splits = split_indices(dataset, recipe)
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": {
            "name": dataset.name,
            "title": dataset.title,
            "note": dataset.note,
            "given_note": given_note,
            "training_images": len(splits.train),
            "validation_images": len(splits.validation),
            "test_images": len(splits.test),
            "origin": dict(dataset.origin),
        },
        "labels": list(dataset.labels),
        "input_shape": list(dataset.train.shape),
        "parameters": model.count_params(),
        "seed": recipe.seed,
        "libraries": keras_setup.library_versions(),
    }
