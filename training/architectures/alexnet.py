"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional networks", 2012."""

from typing import Any

import keras
from keras import layers

from training.architectures.layers import (
    UNIT_RANGE,
    LocalResponseNormalization,
    Normalization,
    alexnet_initializer,
    hidden_layer,
    logits_layer,
    normalized_input,
)


def alexnet(
    input_shape: tuple[int, int, int] = (227, 227, 3),
    classes: int = 1000,
    normalization: Normalization = UNIT_RANGE,
    dropout: float = 0.5,
    units: int = 4096,
) -> keras.Model:
    """Five convolutions and three fully connected layers in one tower: 62,378,344 parameters with the defaults.

    The paper splits conv2, conv4 and conv5 over two GPUs; here they read all channels. The paper states a 224x224
    input, but its arithmetic needs 227x227. Pooling comes before normalization; in the paper it comes after. Initial
    weights are as in section 5: standard deviation 0.01, biases 1 in conv2, conv4, conv5 and the hidden layers. Output:
    logits.
    """
    image, x = normalized_input(input_shape, normalization)
    x = _conv(x, 96, 11, "conv1", strides=4, padding="valid")
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = LocalResponseNormalization(name="norm1")(x)
    x = _conv(x, 256, 5, "conv2", bias_initializer="ones")
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = LocalResponseNormalization(name="norm2")(x)
    x = _conv(x, 384, 3, "conv3")
    x = _conv(x, 384, 3, "conv4", bias_initializer="ones")
    x = _conv(x, 256, 3, "conv5", bias_initializer="ones")
    x = layers.MaxPooling2D(3, 2, name="pool3")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = hidden_layer(x, units, dropout, number, kernel_initializer=alexnet_initializer(), bias_initializer="ones")
    return keras.Model(image, logits_layer(x, classes, kernel_initializer=alexnet_initializer()), name="alexnet")


def _conv(
    x: keras.KerasTensor, filters: int, size: int, name: str, padding: str = "same", **options: Any
) -> keras.KerasTensor:
    convolution = layers.Conv2D(
        filters,
        size,
        padding=padding,
        activation="relu",
        kernel_initializer=alexnet_initializer(),
        name=name,
        **options,
    )
    return convolution(x)
