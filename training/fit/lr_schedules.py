"""Learning rate schedules.

The rate is computed inside the training step from the optimizer's step counter. This works on every backend, and a
resumed run continues at the right step.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from training.recipes.base import Recipe

WARM_UP_START = 1 / 25
"""The warm-up starts at this fraction of the highest rate, the usual value of one-cycle schedules."""


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The recipe's learning rate: warm-up, then the curve of the recipe's schedule, which falls from 1 over the rest of
    the run.

    The optimizer's steps count from `first_epoch`. While the base is frozen, the rate is the recipe's `learning_rate`.
    Milestones and warm-up count from the end of `frozen_epochs`.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int, first_epoch: int = 0) -> None:
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch
        self._first_epoch = first_epoch
        self._plateau_factor = 1.0
        self._variable: keras.Variable | None = None

    def __call__(self, step: Any) -> Any:
        factor = self._plateau_factor if self._variable is None else ops.convert_to_tensor(self._variable)
        return self._rate(self._first_epoch * self._steps_per_epoch + ops.cast(step, "int32"), factor)

    def rate_at(self, epoch: int, batch: int) -> float:
        """Returns the rate of a batch in an epoch, both counted from 0, for use outside the training step."""
        step = ops.convert_to_tensor(epoch * self._steps_per_epoch + batch, "int32")
        return float(self._rate(step, self._plateau_factor))

    def rate_at_end_of(self, epoch: int) -> float:
        """Returns the rate of the last batch of an epoch, counted from 0."""
        return self.rate_at(epoch, self._steps_per_epoch - 1)

    def attach(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Lets the `plateau` schedule change the rate of this optimizer although the training step is compiled only
        once."""
        self._variable = optimizer.add_variable((), "ones", name="plateau_factor")

    def set_plateaus(self, plateaus: int) -> None:
        """Sets the number of plateaus since the beginning of the run, each of which lowers the rate."""
        self._plateau_factor = self._recipe.decay**plateaus
        if self._variable is not None:
            self._variable.assign(self._plateau_factor)

    def _rate(self, step: Any, plateau_factor: Any) -> Any:
        """Returns the rate of a step of the run. Steps are int32, because float32 would round some epochs down."""
        recipe = self._recipe
        step = step - recipe.frozen_epochs * self._steps_per_epoch
        epochs_unfrozen = ops.cast(step, "float32") / self._steps_per_epoch
        curve = self._curve(step, epochs_unfrozen) * plateau_factor
        if recipe.warm_up_epochs:
            warm_up = WARM_UP_START + (1 - WARM_UP_START) * epochs_unfrozen / recipe.warm_up_epochs
            curve = ops.where(epochs_unfrozen < recipe.warm_up_epochs, warm_up, curve)
        if not recipe.frozen_epochs:
            return recipe.learning_rate * curve
        return ops.where(epochs_unfrozen < 0, recipe.learning_rate, recipe.unfrozen_rate * curve)

    def _curve(self, step: Any, epochs_unfrozen: Any) -> Any:
        if self._recipe.schedule != "step":
            return CURVES[self._recipe.schedule](self._recipe, epochs_unfrozen)
        borders = (math.ceil(milestone * self._steps_per_epoch - 1e-6) for milestone in self._recipe.milestones)
        return self._recipe.decay ** sum(ops.cast(step >= border, "float32") for border in borders)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("A schedule cannot be serialized: models are saved without their optimizer.")


def _constant(recipe: Recipe, epoch: Any) -> Any:
    return ops.ones_like(epoch)


def _cosine(recipe: Recipe, epoch: Any) -> Any:
    """Loshchilov and Hutter 2016 ("SGDR"), one period after the warm-up."""
    return 0.5 * (1 + ops.cos(math.pi * _progress(recipe, epoch)))


def _one_cycle(recipe: Recipe, epoch: Any) -> Any:
    """Smith and Topin 2017, in the simple form: linear warm-up, then linear decay to zero."""
    return 1 - _progress(recipe, epoch)


def _progress(recipe: Recipe, epoch: Any) -> Any:
    """Returns the completed fraction of the run after the warm-up, 0 to 1."""
    decay_epochs = max(recipe.epochs - recipe.frozen_epochs - recipe.warm_up_epochs, 1e-6)
    return ops.clip((epoch - recipe.warm_up_epochs) / decay_epochs, 0.0, 1.0)


CURVES: dict[str, Callable[[Recipe, Any], Any]] = {
    "constant": _constant,
    "plateau": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
}
