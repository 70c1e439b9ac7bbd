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
    """The recipe's learning rate: warm-up, then the named curve from 1 down over the rest of the run.

    The optimiser's steps are counted from `first_epoch` on. While a base is frozen the rate is the recipe's own.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int, first_epoch: int = 0) -> None:
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch
        self._first_epoch = first_epoch
        self._after_plateaus = 1.0
        self._variable: keras.Variable | None = None

    def __call__(self, step: Any) -> Any:
        share = self._after_plateaus if self._variable is None else ops.convert_to_tensor(self._variable)
        return self._rate(self._first_epoch + ops.cast(step, "float32") / self._steps_per_epoch, share)

    def at(self, epoch: int, batch: int) -> float:
        """The rate of one batch of an epoch, both from 0, asked from outside the training step."""
        return float(self._rate(ops.cast(epoch + batch / self._steps_per_epoch, "float32"), self._after_plateaus))

    def at_end_of(self, epoch: int) -> float:
        """The rate of the last batch of an epoch, from 0."""
        return self.at(epoch, self._steps_per_epoch - 1)

    def follow(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Lets `plateau` change the rate of this optimiser, whose training step is compiled once and for all."""
        self._variable = optimizer.add_variable((), "ones", name="after_plateaus")

    def lower(self, plateaus: int) -> None:
        """Says how many plateaus there have been since the beginning."""
        self._after_plateaus = self._recipe.decay**plateaus
        if self._variable is not None:
            self._variable.assign(self._after_plateaus)

    def _rate(self, epoch: Any, after_plateaus: Any) -> Any:
        recipe = self._recipe
        since = epoch - recipe.frozen_epochs
        curve = CURVES[recipe.schedule](recipe, since) * after_plateaus
        if recipe.warm_up_epochs:
            warm_up = START_SHARE + (1 - START_SHARE) * since / recipe.warm_up_epochs
            curve = ops.where(since < recipe.warm_up_epochs, warm_up, curve)
        if not recipe.frozen_epochs:
            return recipe.learning_rate * curve
        return ops.where(since < 0, recipe.learning_rate, recipe.unfrozen_rate * curve)

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
    length = max(recipe.epochs - recipe.frozen_epochs - recipe.warm_up_epochs, 1e-6)
    return ops.clip((epoch - recipe.warm_up_epochs) / length, 0.0, 1.0)


CURVES: dict[str, Callable[[Recipe, Any], Any]] = {
    "constant": _constant,
    "step": _step,
    "plateau": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
}
