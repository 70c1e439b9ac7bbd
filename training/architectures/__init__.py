"""Name -> builder, one explicit table. A builder takes input_shape, classes and its own options, and gives logits."""

from collections.abc import Callable

import keras

from training.architectures.lenet import lenet5

Builder = Callable[..., keras.Model]

ARCHITECTURES: dict[str, Builder] = {
    "lenet5": lenet5,
}
