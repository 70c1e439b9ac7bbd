"""Exponential moving average of a network's weights, which the optimiser keeps and the checkpoint contains."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def ema_weights(model: keras.Model) -> Iterator[None]:
    """Within the context, a compiled network has the moving averages of its weights, if its optimiser keeps them.

    Batch normalisation's means and variances stay: they are moving averages already.
    """
    if not model.optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    weights = [np.array(variable) for variable in variables]
    model.optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, array in zip(variables, weights, strict=True):
            variable.assign(array)
