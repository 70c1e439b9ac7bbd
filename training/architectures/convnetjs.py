"""The CIFAR-10 network of ConvNetJS (Karpathy 2014), a demonstration that trains in the browser."""

import keras
from keras import layers

from training.architectures.layers import UNIT_RANGE, Normalization, logits_layer, normalized_input


def convnetjs(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    normalization: Normalization = UNIT_RANGE,
    filters: tuple[int, ...] = (16, 20, 20),
) -> keras.Model:
    """Three blocks of 5x5 convolution, ReLU and 2x2 pooling, then one fully connected layer:

    22,466 parameters. Output: logits.
    """
    image, x = normalized_input(input_shape, normalization)
    for number, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, 5, padding="same", activation="relu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(image, logits_layer(x, classes), name="convnetjs")
