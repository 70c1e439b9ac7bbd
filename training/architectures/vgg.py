"""VGG: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014, table 1."""

import keras
from keras import layers

from training.architectures.layers import (
    UNIT_RANGE,
    LocalResponseNormalization,
    Normalization,
    batch_normalization,
    hidden_layer,
    logits_layer,
    normalized_input,
    relu,
)

# N is a 3x3 convolution with N filters, N/1 a 1x1 convolution with N filters, M a 2x2 pooling.
CONFIGURATIONS = {
    "a": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "a-lrn": "64 LRN M 128 M 256 256 M 512 512 M 512 512 M",
    "b": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "c": "64 64 M 128 128 M 256 256 256/1 M 512 512 512/1 M 512 512 512/1 M",
    "d": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "e": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


def vgg(
    configuration: str,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    normalization: Normalization = UNIT_RANGE,
    batch_norm: bool = False,
    dropout: float = 0.5,
    units: int = 4096,
    width: float = 1.0,
) -> keras.Model:
    """One column of the paper's table 1: "a" (11 layers), "a-lrn", "b" (13), "c" and "d" (16), "e" (19).

    `batch_norm` adds batch normalization after every convolution, in place of its biases. The paper predates batch
    normalization, but D and E hardly train from scratch without it. `units` is the size of the two hidden layers, and
    `width` scales the number of filters in every layer. Initial weights follow Glorot & Bengio 2010, which the paper
    calls sufficient (section 3.1). Output: logits.
    """
    image, x = normalized_input(input_shape, normalization)
    stages = CONFIGURATIONS[configuration].removesuffix(" M").split(" M ")
    for stage, tokens in enumerate(stages, start=1):
        for number, token in enumerate(tokens.split(), start=1):
            x = _layer(x, token, f"{stage}_{number}", batch_norm, width)
        x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = hidden_layer(hidden_layer(x, units, dropout, 6), units, dropout, 7)
    return keras.Model(image, logits_layer(x, classes), name=f"vgg_{configuration.replace('-', '_')}")


def _layer(x: keras.KerasTensor, token: str, name: str, batch_norm: bool, width: float) -> keras.KerasTensor:
    if token == "LRN":
        return LocalResponseNormalization(name=f"norm{name}")(x)
    filters, _, size = token.partition("/")
    count = round(int(filters) * width)
    x = layers.Conv2D(count, int(size or 3), padding="same", use_bias=not batch_norm, name=f"conv{name}")(x)
    return relu(batch_normalization(x, f"bn{name}") if batch_norm else x, f"conv{name}")
