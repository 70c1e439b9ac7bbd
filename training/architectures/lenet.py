"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998."""

import keras
from keras import layers

from training.architectures.layers import UNIT_RANGE, Normalization, logits_layer, normalized_input


def lenet5(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    normalization: Normalization = UNIT_RANGE,
    activation: str = "tanh",
) -> keras.Model:
    """The modern form, CONV-POOL-CONV-POOL-CONV-FC: 5x5 filters, 2x2 pooling, C3 connected to all of S2.

    It has 61,706 parameters with the defaults. The padding of C1 replaces the paper's 32x32 input. C5 is a dense layer,
    which equals the paper's convolution over the whole remaining map. Output: logits.
    """
    image, x = normalized_input(input_shape, normalization)
    x = layers.Conv2D(6, 5, padding="same", activation=activation, name="c1")(x)
    x = layers.MaxPooling2D(2, name="s2")(x)
    x = layers.Conv2D(16, 5, activation=activation, name="c3")(x)
    x = layers.MaxPooling2D(2, name="s4")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(120, activation=activation, name="c5")(x)
    x = layers.Dense(84, activation=activation, name="f6")(x)
    return keras.Model(image, logits_layer(x, classes), name="lenet5")
