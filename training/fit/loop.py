"""The epochs of a run, phase by phase: what learns, by which optimiser, and what happens around it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras

from training.architectures import keras_applications
from training.data import device_augment
from training.data.batches import EvaluationBatches, TrainingBatches, reraise_batch_errors
from training.data.datasets.base import Dataset
from training.data.input_stall import DataStallCallback
from training.data.splits import SplitIndices
from training.fit.callbacks import (
    AveragedValidation,
    ProgressBar,
    RecordEpoch,
    ReduceLROnPlateau,
    SetEpoch,
    StopEarly,
    StopOnDivergence,
    TensorBoard,
)
from training.fit.distributed.data_parallel import SINGLE_PROCESS, DistributedContext
from training.fit.early_stopping import is_over
from training.fit.lr_schedules import Schedule
from training.fit.optimizers import make_loss, make_optimizer
from training.recipes.base import APPLICATION, Recipe
from training.runs import checkpoint
from training.runs.checkpoint import Progress
from training.runs.run_folder import Run


@dataclass(frozen=True)
class TrainingContext:
    """What is trained, on which images, by whom, and who is told. `tensorboard` has the epochs logged for it too."""

    run: Run
    recipe: Recipe
    dataset: Dataset
    splits: SplitIndices
    say: Callable[[str], None]
    tensorboard: bool = False
    context: DistributedContext = SINGLE_PROCESS


def fit(job: TrainingContext, model: keras.Model) -> Progress:
    """Trains from where the run's checkpoint is, or from the beginning, to the end of the recipe or its patience.

    The model ends compiled, with the optimiser of the last phase.
    """
    recipe, classes = job.recipe, len(job.dataset.labels)
    train, workers, shard = job.dataset.train, job.dataset.workers, job.context.shard
    device_data = device_augment.copy_to_device(train, recipe) if recipe.on_device else None
    batches = TrainingBatches(train, job.splits.train, classes, recipe, workers, shard, device_data)
    validation = EvaluationBatches(
        train, job.splits.validation, classes, recipe.batch_size, workers, shard, device_data
    )
    progress = checkpoint.restore(job.run.checkpoint_path, model)
    if progress.epochs:
        job.say(f"resumed after epoch {progress.epochs}")
    for phase in phases(recipe):
        if progress.epochs >= phase.stop and phase.stop < recipe.epochs:
            continue
        schedule = _prepare(job, model, phase, len(batches))
        if progress.epochs > phase.start:
            checkpoint.restore_optimizer(job.run.checkpoint_path, model)
        if progress.epochs >= phase.stop or is_over(recipe, progress.history):
            break
        with reraise_batch_errors(batches, validation):
            model.fit(
                batches,
                validation_data=validation if len(validation) else None,
                initial_epoch=progress.epochs,
                epochs=phase.stop,
                shuffle=False,  # the batches shuffle themselves, repeatably
                verbose=0,
                callbacks=_callbacks(job, batches, schedule, progress),
            )
    return progress


def phases(recipe: Recipe) -> list[range]:
    """The epochs, from 0, with a frozen base, and those without; in most recipes only the latter."""
    cut = min(recipe.frozen_epochs, recipe.epochs)
    return [phase for phase in (range(cut), range(cut, recipe.epochs)) if phase]


def _prepare(job: TrainingContext, model: keras.Model, phase: range, steps_per_epoch: int) -> Schedule:
    """Compiles the model for a phase. Averages are of the last one only, they would mix what two optimisers did."""
    recipe = job.recipe
    if recipe.architecture.startswith(APPLICATION):
        frozen = phase.start < recipe.frozen_epochs
        keras_applications.freeze(model, frozen)
        job.say(
            f"epochs {phase.start + 1} to {phase.stop}: {'the last layer learns' if frozen else 'all layers learn'}"
        )
    if phase.stop < recipe.epochs:
        recipe = replace(recipe, weight_average=0.0)
    elif recipe.weight_average:
        job.say(f"validated and kept are averages of the weights, {recipe.weight_average:g} of themselves a step")
    schedule = Schedule(recipe, steps_per_epoch, phase.start)
    model.compile(make_optimizer(recipe, model, schedule), make_loss(recipe), metrics=["accuracy"])
    return schedule


def _callbacks(job: TrainingContext, batches: TrainingBatches, schedule: Schedule, progress: Progress) -> list:
    recipe, is_main = job.recipe, job.context.is_main
    return [
        SetEpoch(batches),
        DataStallCallback(batches.timings),
        *([ReduceLROnPlateau(recipe, progress, schedule)] if recipe.schedule == "plateau" else []),
        StopOnDivergence(schedule),
        AveragedValidation(),
        *([ProgressBar(len(batches), recipe.epochs, sys.stderr)] if is_main and sys.stderr.isatty() else []),
        RecordEpoch(job.run, progress, len(job.splits.train), recipe, schedule, job.say, is_main),
        *([TensorBoard(job.run.tensorboard_path, progress)] if is_main and job.tensorboard else []),
        StopEarly(recipe, progress, job.say),
    ]
