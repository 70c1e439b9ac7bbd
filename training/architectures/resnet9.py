"""ResNet-9, a small network that trains fast: David Page, "How to train your ResNet", 2018 (myrtle.ai, DAWNBench).

Its author reached 94.08% accuracy on CIFAR-10 in 24 epochs, which took 79 seconds on one V100.
"""

import keras
from keras import layers

from training.architectures.layers import UNIT_RANGE, Normalization, conv_norm, logits_layer, normalized_input, relu

WIDTHS = (64, 128, 256, 512)
LOGIT_SCALE = 0.125


def resnet9(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    normalization: Normalization = UNIT_RANGE,
    width: float = 1.0,
) -> keras.Model:
    """A 3x3 convolution, three stages that double the filters and halve the image, two residual blocks, and one FC.

    The residual blocks follow the first and the third stage. Global max pooling (over 4x4 positions for 32x32 pixels)
    and a scaling by 1/8 precede the last layer, which has no biases, as in the source. `width` scales the number of
    filters in every layer. Output: logits.
    """
    filters = [round(number * width) for number in WIDTHS]
    image, x = normalized_input(input_shape, normalization)
    x = _conv(x, filters[0], "stem")
    for stage, number in enumerate(filters[1:], start=1):
        x = layers.MaxPooling2D(2, name=f"pool{stage}")(_conv(x, number, f"conv{stage}"))
        if stage != 2:
            x = _residual(x, number, f"block{stage}")
    if None in x.shape[1:3]:  # images of any size
        x = layers.GlobalMaxPooling2D(name="pool")(x)
    else:
        x = layers.Flatten(name="flatten")(layers.MaxPooling2D(x.shape[1:3], name="pool")(x))
    x = layers.Rescaling(LOGIT_SCALE, name="scale")(x)
    return keras.Model(image, logits_layer(x, classes, use_bias=False), name="resnet9")


def _conv(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    return relu(conv_norm(x, filters, 3, 1, name), name)


def _residual(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Returns the sum of the input and the output of two convolutions, without an activation after the sum."""
    return layers.Add(name=f"{name}_add")([x, _conv(_conv(x, filters, f"{name}_1"), filters, f"{name}_2")])
