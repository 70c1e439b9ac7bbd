"""The training loop: a run's epochs in one or two phases (frozen base or not), with their optimizer and callbacks."""

import sys
from dataclasses import dataclass, replace
from itertools import groupby

import keras

from training.architectures import keras_applications
from training.data import device_augment
from training.data.batches import EvaluationBatches, TrainingBatches, reraise_batch_errors
from training.data.datasets.base import Dataset
from training.data.input_stall import DataStallCallback
from training.data.splits import SplitIndices
from training.fit.callbacks import (
    EarlyStopping,
    Log,
    ProgressBar,
    RecordEpoch,
    ReduceLROnPlateau,
    SetEpoch,
    StopOnDivergence,
    TensorBoard,
    ValidateEMA,
)
from training.fit.distributed.data_parallel import SINGLE_PROCESS, DistributedContext
from training.fit.early_stopping import is_out_of_patience
from training.fit.ema import AveragedWeights
from training.fit.lr_schedules import Schedule
from training.fit.optimizers import make_loss, make_optimizer
from training.recipes.base import APPLICATION_PREFIX, Recipe
from training.runs import checkpoint
from training.runs.checkpoint import TrainingProgress
from training.runs.run_folder import Run


@dataclass(frozen=True)
class TrainingContext:
    """The inputs of one run's training. With `tensorboard`, epochs are also written as TensorBoard events."""

    run: Run
    recipe: Recipe
    dataset: Dataset
    splits: SplitIndices
    log: Log
    tensorboard: bool = False
    distributed: DistributedContext = SINGLE_PROCESS


def fit(context: TrainingContext, model: keras.Model, averages: AveragedWeights) -> TrainingProgress:
    """Trains from the run's checkpoint, or from the beginning, until the last epoch or until the patience is exhausted.

    The model is left compiled with the optimizer of the last phase.
    """
    recipe, classes = context.recipe, len(context.dataset.labels)
    train, workers, shard = context.dataset.train, context.dataset.workers, context.distributed.shard
    device_data = device_augment.copy_to_device(train, recipe) if recipe.augment_on_device else None
    batches = TrainingBatches(train, context.splits.train, classes, recipe, workers, shard, device_data)
    validation = EvaluationBatches(
        train, context.splits.validation, classes, recipe.batch_size, workers, shard, device_data
    )
    progress = checkpoint.restore(context.run.checkpoint_path, model)
    if progress.epochs:
        context.log(f"resumed after epoch {progress.epochs}")
    for phase in phases(recipe):
        if progress.epochs >= phase.stop and phase.stop < recipe.epochs:
            continue
        schedule = _compile(context, model, phase, len(batches))
        if progress.epochs > phase.start:
            checkpoint.restore_optimizer(context.run.checkpoint_path, model)
        for epochs in split_by_side(recipe, phase):
            if progress.epochs >= epochs.stop or is_out_of_patience(recipe, progress.history):
                continue
            if recipe.progressive_side_px:
                side_px = recipe.side_px_at(epochs.start)
                context.log(f"epochs {epochs.start + 1} to {epochs.stop}: training images of {side_px} pixels")
            batches.epoch = progress.epochs  # Keras reads the shape of the images before the epoch begins
            model.train_function = (
                None  # trace again for each size; otherwise TensorFlow would trace one slower function for all sizes
            )
            with reraise_batch_errors(batches, validation):
                model.fit(
                    batches,
                    validation_data=validation if len(validation) else None,
                    initial_epoch=progress.epochs,
                    epochs=epochs.stop,
                    shuffle=False,  # the batches shuffle themselves, reproducibly
                    verbose=0,
                    callbacks=_callbacks(context, batches, schedule, progress, averages),
                )
    return progress


def phases(recipe: Recipe) -> list[range]:
    """Returns the range of epochs (from 0) with a frozen base, and the range without one. Most recipes have only the
    latter."""
    frozen_epochs = min(recipe.frozen_epochs, recipe.epochs)
    return [phase for phase in (range(frozen_epochs), range(frozen_epochs, recipe.epochs)) if phase]


def split_by_side(recipe: Recipe, phase: range) -> list[range]:
    """Splits the epochs of a phase into ranges in which the training images have one size."""
    return [range(part[0], part[-1] + 1) for _, group in groupby(phase, recipe.side_px_at) for part in [list(group)]]


def _compile(context: TrainingContext, model: keras.Model, phase: range, steps_per_epoch: int) -> Schedule:
    """Compiles the model for a phase. Weights are averaged only in the last phase, because each phase has a new
    optimizer."""
    recipe = context.recipe
    if recipe.architecture.startswith(APPLICATION_PREFIX):
        is_frozen = phase.start < recipe.frozen_epochs
        keras_applications.freeze(model, is_frozen)
        context.log(
            f"epochs {phase.start + 1} to {phase.stop}: "
            f"{'only the last layer is trained' if is_frozen else 'all layers are trained'}"
        )
    if phase.stop < recipe.epochs:
        recipe = replace(recipe, ema_decay=0.0)
    elif recipe.ema_decay:
        context.log(
            f"moving averages of the weights are validated and kept, with a decay of {recipe.ema_decay:g} per step"
        )
    schedule = Schedule(recipe, steps_per_epoch, phase.start)
    model.compile(make_optimizer(recipe, model, schedule), make_loss(recipe), metrics=["accuracy"])
    return schedule


def _callbacks(
    context: TrainingContext,
    batches: TrainingBatches,
    schedule: Schedule,
    progress: TrainingProgress,
    averages: AveragedWeights,
) -> list[keras.callbacks.Callback]:
    recipe, is_main = context.recipe, context.distributed.is_main
    return [
        SetEpoch(batches),
        DataStallCallback(batches.timings),
        *([ReduceLROnPlateau(recipe, progress, schedule)] if recipe.schedule == "plateau" else []),
        StopOnDivergence(schedule),
        ValidateEMA(averages),
        *([ProgressBar(len(batches), recipe.epochs, sys.stderr)] if is_main and sys.stderr.isatty() else []),
        RecordEpoch(context.run, progress, batches.images_per_epoch, recipe, schedule, averages, context.log, is_main),
        *([TensorBoard(context.run.tensorboard_path, progress)] if is_main and context.tensorboard else []),
        EarlyStopping(recipe, progress, context.log),
    ]
