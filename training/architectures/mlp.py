"""A multilayer perceptron: fully connected layers on the flattened image."""

import keras
from keras import layers

from training.architectures.layers import UNIT_RANGE, Normalization, logits_layer, normalized_input


def mlp(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    normalization: Normalization = UNIT_RANGE,
    hidden: tuple[int, ...] = (500, 500),
    activation: str = "sigmoid",
    dropout: float = 0.0,
) -> keras.Model:
    """Fully connected layers of `hidden` units each, by default 784-500-500-10 with 648,010 parameters.

    `dropout` is the fraction of hidden units that is dropped after each layer in training. Output: logits.
    """
    image, x = normalized_input(input_shape, normalization)
    x = layers.Flatten(name="flatten")(x)
    for number, units in enumerate(hidden, start=1):
        x = layers.Dense(units, activation=activation, name=f"fc{number}")(x)
        x = layers.Dropout(dropout, name=f"drop{number}")(x)
    return keras.Model(image, logits_layer(x, classes), name="mlp")
