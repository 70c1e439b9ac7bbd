"""The exponential moving average of a network's weights (EMA): its decay, and the network that has these weights.

The optimizer keeps the average, and the checkpoint saves it with the optimizer. Independent of runs and recipes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

STATISTICS_BATCHES = 20
"""Number of batches for estimating batch statistics of the averaged weights."""


Arrays = list[NDArray[np.float32]]


class Batches(Protocol):
    """Batches of images with labels, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, Any]: ...


class EmaWarmUp(keras.optimizers.Optimizer):
    """Mixin for a Keras optimizer: the decay of the average after t steps is min(decay, (1 + t) / (10 + t)).

    With a constant decay of 0.999, the weights of the first step are still 65% of the average after 423 steps. The
    formula is that of TensorFlow's `tf.train.ExponentialMovingAverage(num_updates=t)`.
    """

    @property
    def ema_momentum(self) -> Any:
        """The decay of the current step: a number before the optimizer is built, then a scalar tensor."""
        if not self.built:
            return self._decay
        step = ops.cast(self.iterations, "float32")
        return ops.minimum(self._decay, (1 + step) / (10 + step))

    @ema_momentum.setter
    def ema_momentum(self, decay: float) -> None:
        self._decay = decay

    def assign_averages(self, var_list: Sequence[keras.Variable]) -> None:
        """Assigns copies of the averages. Keras would assign its own buffers, which JAX later donates and deletes."""
        super().finalize_variable_values(var_list)
        _assign(var_list, [np.array(variable) for variable in var_list])

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Does nothing. Keras calls it at the end of every `fit`, but a run may continue with another image size."""


class AveragedWeights:
    """Temporarily replaces the weights of a compiled network by their average.

    The batch statistics of the raw weights do not fit the averaged weights, so `estimate` computes new statistics (see
    `estimate_statistics`). `estimate` is called only for networks with batch normalization.
    """

    def __init__(self, estimate: Callable[[Arrays], Arrays]) -> None:
        self._estimate_statistics = estimate
        self._cached_statistics: tuple[int, Arrays] | None = None

    @contextmanager
    def apply_to(self, model: keras.Model) -> Iterator[None]:
        """Within the context, `model` has the averaged weights, or its own if the optimizer keeps no average."""
        if not model.optimizer.use_ema:
            yield
            return
        raw_weights = [np.array(variable) for variable in model.weights]
        model.optimizer.assign_averages(model.trainable_variables)
        if _normalization_layers(model):
            _assign(_statistics(model), self._statistics_for(model))
        try:
            yield
        finally:
            _assign(model.weights, raw_weights)

    def _statistics_for(self, model: keras.Model) -> Arrays:
        """Returns batch statistics for the current weights of `model`, computed once per optimizer step."""
        step = int(model.optimizer.iterations)
        if self._cached_statistics is None or self._cached_statistics[0] != step:
            self._cached_statistics = step, self._estimate_statistics(model.get_weights())
        return self._cached_statistics[1]


def estimate_statistics(
    network: keras.Model, weights: Arrays, batches: Batches, count: int = STATISTICS_BATCHES
) -> Arrays:
    """Returns means and variances for the batch normalization of `network`, in the order of its variables.

    The statistics are means over the first `count` batches, computed with the given `weights`. Frozen layers keep their
    statistics.
    """
    network.set_weights(weights)
    layers = _normalization_layers(network)
    momenta = [layer.momentum for layer in layers]
    for index in range(min(count, len(batches))):
        for layer in layers:
            layer.momentum = index / (index + 1)  # a running mean over the batches
        network(batches[index][0], training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return [np.array(variable) for variable in _statistics(network)]


def _statistics(model: keras.Model) -> list[keras.Variable]:
    return [
        variable for layer in _normalization_layers(model) for variable in (layer.moving_mean, layer.moving_variance)
    ]


def _normalization_layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    layers = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layers.append(layer)
        elif hasattr(layer, "layers"):
            layers += _normalization_layers(layer)
    return layers


def _assign(variables: Sequence[keras.Variable], arrays: Arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
