"""The exponential moving average of a network's weights, which the optimiser keeps (and the checkpoint with it)."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """While it lasts, a compiled network has the averages of its weights; where none are kept, its own.

    Batch normalisation's means and variances stay: they are moving averages already.
    """
    if not model.optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    own = [np.array(variable) for variable in variables]
    model.optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, array in zip(variables, own, strict=True):
            variable.assign(array)
