"""Learning rates over a run. A schedule is computed inside the training step from the optimiser's own step counter, so
that it holds on every backend and a resumed run goes on at the right place.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from training.recipes.base import Recipe

START_SHARE = 1 / 25
"""Of the highest rate: where a warm-up starts (the customary divisor of one-cycle schedules)."""


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The recipe's learning rate at a step: warm-up, then the named curve from 1 down over the rest of the run."""

    def __init__(self, recipe: Recipe, steps_per_epoch: int) -> None:
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch

    def __call__(self, step: Any) -> Any:
        recipe = self._recipe
        epoch = ops.cast(step, "float32") / self._steps_per_epoch
        curve = CURVES[recipe.schedule](recipe, epoch)
        if recipe.warm_up_epochs:
            warm_up = START_SHARE + (1 - START_SHARE) * epoch / recipe.warm_up_epochs
            curve = ops.where(epoch < recipe.warm_up_epochs, warm_up, curve)
        return recipe.learning_rate * curve

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("A schedule is made from its recipe; models are saved without their optimiser.")


def _constant(recipe: Recipe, epoch: Any) -> Any:
    return ops.ones_like(epoch)


def _step(recipe: Recipe, epoch: Any) -> Any:
    passed = sum(ops.cast(epoch >= milestone, "float32") for milestone in recipe.milestones)
    return recipe.decay**passed


def _cosine(recipe: Recipe, epoch: Any) -> Any:
    """Loshchilov and Hutter 2016 ("SGDR"), one period after the warm-up."""
    return 0.5 * (1 + ops.cos(math.pi * _share(recipe, epoch)))


def _one_cycle(recipe: Recipe, epoch: Any) -> Any:
    """Smith and Topin 2017, in the plain form: up in a straight line (the warm-up), and down to nothing in another."""
    return 1 - _share(recipe, epoch)


def _share(recipe: Recipe, epoch: Any) -> Any:
    """How much of the run after the warm-up is over, 0 to 1."""
    length = max(recipe.epochs - recipe.warm_up_epochs, 1e-6)
    return ops.clip((epoch - recipe.warm_up_epochs) / length, 0.0, 1.0)


CURVES: dict[str, Callable[[Recipe, Any], Any]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
}
