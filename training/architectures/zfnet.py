"""ZFNet: Zeiler, Fergus, "Visualizing and understanding convolutional networks", 2013, figure 3."""

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


def zfnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    normalization: Normalization = UNIT_RANGE,
    filters: tuple[int, int, int] = (512, 1024, 512),
    dropout: float = 0.5,
    units: int = 4096,
) -> keras.Model:
    """AlexNet with a finer first layer: 7x7 with stride 2 instead of 11x11 with stride 4, and conv2 with stride 2.

    `filters` are the numbers of filters in conv3, conv4 and conv5. The default is the larger network of the paper's
    table 3. (384, 384, 256) gives the network of figure 3. The pools after conv1 and conv2 keep partial windows (110 ->
    55, 26 -> 13), as the sizes in the figure require. "Contrast norm" is local response normalization here. Output:
    logits.
    """
    image, x = normalized_input(input_shape, normalization)
    x = layers.ZeroPadding2D(1, name="conv1_pad")(x)
    x = _conv(x, 96, 7, "conv1", strides=2)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    x = LocalResponseNormalization(name="norm1")(x)
    x = _conv(x, 256, 5, "conv2", strides=2)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool2")(x)
    x = LocalResponseNormalization(name="norm2")(x)
    for number, count in enumerate(filters, start=3):
        x = _conv(x, count, 3, f"conv{number}", padding="same")
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = hidden_layer(x, units, dropout, number, kernel_initializer=alexnet_initializer())
    return keras.Model(image, logits_layer(x, classes, kernel_initializer=alexnet_initializer()), name="zfnet")


def _conv(x: keras.KerasTensor, filters: int, size: int, name: str, **options: Any) -> keras.KerasTensor:
    return layers.Conv2D(
        filters, size, activation="relu", kernel_initializer=alexnet_initializer(), name=name, **options
    )(x)
