"""A toy network that distinguishes X from O, small enough to compute every number by hand."""

from typing import Any

import keras
from keras import layers

from training.architectures.kernels import NamedKernels
from training.architectures.layers import Normalization, logits_layer, normalized_input

INK_AND_PAPER = Normalization(mean=(0.5,), std=(0.5,))  # ink (255) becomes 1, paper (0) becomes -1
FEATURES = ("stroke_down", "crossing", "stroke_up")
FEATURE_PIXELS = 9


def xo(
    input_shape: tuple[int, int, int] = (9, 9, 1),
    classes: int = 2,
    normalization: Normalization = INK_AND_PAPER,
    features: tuple[str, ...] = FEATURES,
    filters: tuple[int, ...] = (),
) -> keras.Model:
    """Convolution with three known 3x3 features, ReLU, pooling, then one fully connected layer. Output: logits.

    The kernels of the first layer start as `features` (names of `kernels.KERNELS`) divided by 9, so that a perfect
    match gives 1.00; training may change them. Each element of `filters` adds a convolution with that many filters and
    a pooling. Pooling is 2x2 with stride 2 and keeps the partial windows at the right and bottom edge (7 -> 4).
    """
    image, x = normalized_input(input_shape, normalization)
    kernels = NamedKernels(features, scale=1 / FEATURE_PIXELS)
    x = _conv_pool(x, len(features), 1, kernel_initializer=kernels)
    for number, count in enumerate(filters, start=2):
        x = _conv_pool(x, count, number, kernel_initializer="he_normal")
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(image, logits_layer(x, classes), name="xo")


def _conv_pool(x: keras.KerasTensor, filters: int, number: int, **options: Any) -> keras.KerasTensor:
    x = layers.Conv2D(filters, 3, name=f"features{number}", **options)(x)
    x = layers.Activation("relu", name=f"relu{number}")(x)
    return layers.MaxPooling2D(2, padding="same", name=f"pool{number}")(x)
