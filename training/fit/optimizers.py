"""Makes the optimiser and the loss of a recipe."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from training.fit.ema import EmaWarmUp
from training.fit.lr_schedules import Schedule
from training.recipes.base import Recipe


class CoupledWeightDecaySGD(EmaWarmUp, keras.optimizers.SGD):
    """SGD whose weight decay is part of the gradient and so of the momentum, for kernels only.

    The learning rate is inside the momentum, as in Caffe and Keras; PyTorch multiplies by it outside, which is equal at
    a constant rate only.

    That is the L2 penalty of the papers (AlexNet, VGG, ResNet) without its share in the reported loss; Keras' own
    `weight_decay` shrinks the weights beside the momentum, which at momentum 0.9 acts ten times weaker.
    """

    def __init__(self, *, kernel_decay: float, clip_norm: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kernel_decay = kernel_decay
        self._clip_norm = clip_norm

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> Any:
        # Not in update_step: TensorFlow calls that with variables of its own, whose names are others.
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        if self._clip_norm:  # not by Keras' `global_clipnorm`, which would count and shorten the decay too
            grads = clip_by_global_norm(grads, self._clip_norm)
        pairs = zip(grads, variables, strict=True)
        return super().apply([self._add_decay(*pair) for pair in pairs], trainable_variables)

    def _add_decay(self, gradient: Any, variable: keras.Variable) -> Any:
        if not self._kernel_decay or not is_kernel(variable):
            return gradient
        return ops.add(gradient, ops.multiply(variable, self._kernel_decay))


def clip_by_global_norm(gradients: Sequence[Any], max_norm: float) -> list[Any]:
    """Scales gradients down so that they are together no longer than `max_norm` (Pascanu et al. 2013, algorithm 1)."""
    norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))
    scale = max_norm / ops.maximum(norm, max_norm)
    return [ops.multiply(gradient, scale) for gradient in gradients]


class AdamW(EmaWarmUp, keras.optimizers.AdamW):
    """Keras' AdamW; an average of the weights warms up."""


def make_optimizer(recipe: Recipe, model: keras.Model, schedule: Schedule) -> keras.optimizers.Optimizer:
    """The recipe's optimiser, built for the model's trainable variables."""
    optimizer = OPTIMIZERS[recipe.optimizer](recipe, model, schedule)
    optimizer.build(model.trainable_variables)
    if recipe.schedule == "plateau":
        schedule.attach(optimizer)
    return optimizer


def is_kernel(variable: keras.Variable) -> bool:
    """Whether weight decay applies: kernels of convolutions and dense layers, not biases or normalisation."""
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
    """The recipe's loss of (labels, logits), both float32 (n, classes).

    Label smoothing is not in it: the training batches have smoothed labels, so that the validation loss is the plain
    one, which `monitor=loss` follows and `metrics.json` has.
    """
    if recipe.loss == "squared_error":
        return _squared_error
    loss: Callable[[Any, Any], Any] = keras.losses.CategoricalCrossentropy(from_logits=True)
    return loss


def _squared_error(labels: Any, logits: Any) -> Any:
    """Mean over the classes of (probability - label)^2: the squared error of a network that ends in a softmax."""
    return ops.mean(ops.square(ops.softmax(logits) - labels), axis=-1)
