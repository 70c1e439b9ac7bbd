"""Creates the optimizer and the loss of a recipe."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from training.fit.ema import EmaWarmUp
from training.fit.lr_schedules import Schedule
from training.recipes.base import Recipe


class CoupledWeightDecaySGD(EmaWarmUp, keras.optimizers.SGD):
    """SGD that adds weight decay to the gradient, and thereby to the momentum, for kernels only.

    This is the L2 penalty of the papers (AlexNet, VGG, ResNet), but the reported loss does not include the penalty.
    Keras' `weight_decay` bypasses the momentum, which makes it ten times weaker at momentum 0.9. The learning rate is
    part of the momentum, as in Caffe and Keras. PyTorch applies it after the momentum, which is equivalent only at a
    constant rate.
    """

    def __init__(self, *, kernel_decay: float, clip_norm: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kernel_decay = kernel_decay
        self._clip_norm = clip_norm

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> Any:
        # Not in update_step: TensorFlow calls it with its own variables, which have other names.
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        if self._clip_norm:  # not Keras' `global_clipnorm`, which would also clip the decay
            grads = clip_by_global_norm(grads, self._clip_norm)
        pairs = zip(grads, variables, strict=True)
        return super().apply([self._add_decay(*pair) for pair in pairs], trainable_variables)

    def _add_decay(self, gradient: Any, variable: keras.Variable) -> Any:
        if not self._kernel_decay or not is_kernel(variable):
            return gradient
        return ops.add(gradient, ops.multiply(variable, self._kernel_decay))


def clip_by_global_norm(gradients: Sequence[Any], max_norm: float) -> list[Any]:
    """Scales gradients down to a global norm of at most `max_norm` (Pascanu et al. 2013, algorithm 1)."""
    norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))
    scale = max_norm / ops.maximum(norm, max_norm)
    return [ops.multiply(gradient, scale) for gradient in gradients]


class AdamW(EmaWarmUp, keras.optimizers.AdamW):
    """Keras' AdamW with a warm-up of the weight average."""


def make_optimizer(recipe: Recipe, model: keras.Model, schedule: Schedule) -> keras.optimizers.Optimizer:
    """Creates the recipe's optimizer, built for the model's trainable variables."""
    optimizer = OPTIMIZERS[recipe.optimizer](recipe, model, schedule)
    optimizer.build(model.trainable_variables)
    if recipe.schedule == "plateau":
        schedule.attach(optimizer)
    return optimizer


def is_kernel(variable: keras.Variable) -> bool:
    """Returns whether weight decay applies: to kernels of convolutions and dense layers, not to other variables."""
    return str(variable.name).endswith("kernel")


def _sgd(recipe: Recipe, model: keras.Model, schedule: Schedule) -> keras.optimizers.Optimizer:
    return CoupledWeightDecaySGD(
        kernel_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
        learning_rate=schedule,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        **_ema_options(recipe),
    )


def _adamw(recipe: Recipe, model: keras.Model, schedule: Schedule) -> keras.optimizers.Optimizer:
    optimizer = AdamW(
        learning_rate=schedule,
        weight_decay=recipe.weight_decay,
        global_clipnorm=recipe.clip_norm or None,
        **_ema_options(recipe),
    )
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if not is_kernel(v)])
    return optimizer


def _ema_options(recipe: Recipe) -> dict[str, Any]:
    return {"use_ema": bool(recipe.ema_decay), "ema_momentum": recipe.ema_decay}


OPTIMIZERS: dict[str, Callable[[Recipe, keras.Model, Schedule], keras.optimizers.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
}


def make_loss(recipe: Recipe) -> Callable[[Any, Any], Any]:
    """Returns the recipe's loss function of (labels, logits), both float32 (n, classes).

    The function does not smooth labels, because the training batches have smoothed labels. The validation loss, which
    `monitor=loss` and `metrics.json` use, is therefore without smoothing.
    """
    if recipe.loss == "squared_error":
        return _squared_error
    loss: Callable[[Any, Any], Any] = keras.losses.CategoricalCrossentropy(from_logits=True)
    return loss


def _squared_error(labels: Any, logits: Any) -> Any:
    """Returns the mean over the classes of (probability - label)^2, with probabilities from a softmax."""
    return ops.mean(ops.square(ops.softmax(logits) - labels), axis=-1)
