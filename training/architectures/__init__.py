"""Name -> builder, one explicit table. A builder takes input_shape, classes and its own options, and gives logits."""

from collections.abc import Callable
from functools import partial

import keras

from training.architectures.cifar_resnet import cifar_resnet
from training.architectures.lenet import lenet5

Builder = Callable[..., keras.Model]

ARCHITECTURES: dict[str, Builder] = {
    "lenet5": lenet5,
    "cifar-resnet20": partial(cifar_resnet, 20),
    "cifar-resnet32": partial(cifar_resnet, 32),
    "cifar-resnet44": partial(cifar_resnet, 44),
    "cifar-resnet56": partial(cifar_resnet, 56),
    "cifar-resnet110": partial(cifar_resnet, 110),
}
