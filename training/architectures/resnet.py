"""The residual networks for ImageNet: He, Zhang, Ren, Sun, "Deep residual learning", 2015, table 1."""

from dataclasses import dataclass

import keras
from keras import layers

from training.architectures.layers import (
    UNIT_RANGE,
    Normalization,
    conv_norm,
    drop_path,
    linear_drop_rates,
    logits_layer,
    normalized_input,
    relu,
)

# depth: (bottleneck blocks?, blocks in conv2 to conv5)
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


@dataclass(frozen=True)
class _BlockOptions:
    """The options that all blocks of a network share."""

    bottleneck: bool
    stride_in_3x3: bool
    pooled_shortcut: bool
    last_gamma: str


def resnet(
    depth: int,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    normalization: Normalization = UNIT_RANGE,
    stride_in_3x3: bool = False,
    width: float = 1.0,
    zero_init_last_gamma: bool = False,
    drop_path: float = 0.0,
    resnet_d: bool = False,
) -> keras.Model:
    """ResNet-18, 34, 50, 101 or 152, with projections where the shape changes (the paper's option B).

    In a bottleneck the first 1x1 convolution has the stride, as in the paper ("v1"). `stride_in_3x3` moves it to the
    3x3 convolution (Torch's "v1.5": 0.5 points more accurate, slightly slower). `width` scales the number of filters in
    every layer. With `zero_init_last_gamma` the residual branch of every block starts at zero, so that the block
    initially passes on only its shortcut (Goyal et al. 2017). `drop_path` is the rate at which training drops the last
    block (stochastic depth); the rate falls linearly towards the first block. `resnet_d` replaces the 7x7 convolution
    by three of 3x3, and averages pixels before the projections that halve the size, which otherwise skip three of four
    (ResNet-D in He et al. 2018, "Bag of tricks"). Output: logits.
    """
    bottleneck, blocks = DEPTHS[depth]
    block_options = _BlockOptions(bottleneck, stride_in_3x3, resnet_d, "zeros" if zero_init_last_gamma else "ones")
    image, x = normalized_input(input_shape, normalization)
    if resnet_d:
        for number, (filters, stride) in enumerate(((32, 2), (32, 1), (64, 1)), start=1):
            x = relu(conv_norm(x, round(filters * width), 3, stride, f"conv1_{number}"), f"conv1_{number}")
    else:
        x = relu(conv_norm(x, round(64 * width), 7, 2, "conv1"), "conv1")
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)  # zeros never win here: after the ReLU no value is below 0
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    drop_rates = iter(linear_drop_rates(drop_path, sum(blocks)))
    for stage, count in enumerate(blocks, start=2):
        filters = round(64 * 2 ** (stage - 2) * width)
        for block in range(1, count + 1):
            stride = 2 if stage > 2 and block == 1 else 1
            x = _block(x, filters, stride, block_options, next(drop_rates), f"conv{stage}_{block}")
    x = layers.GlobalAveragePooling2D(name="pool5")(x)
    return keras.Model(image, logits_layer(x, classes), name=f"resnet{depth}")


def _block(
    x: keras.KerasTensor, filters: int, stride: int, block_options: _BlockOptions, drop_rate: float, name: str
) -> keras.KerasTensor:
    channels = 4 * filters if block_options.bottleneck else filters
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        if block_options.pooled_shortcut and stride > 1:
            shortcut = layers.AveragePooling2D(stride, padding="same", name=f"{name}_pool")(shortcut)
            stride_of_shortcut = 1
        else:
            stride_of_shortcut = stride
        shortcut = conv_norm(shortcut, channels, 1, stride_of_shortcut, f"{name}_shortcut")
    x = (_bottleneck if block_options.bottleneck else _basic)(x, filters, stride, block_options, name)
    x = drop_path(x, drop_rate, name)
    return relu(layers.Add(name=f"{name}_add")([shortcut, x]), name)


def _basic(
    x: keras.KerasTensor, filters: int, stride: int, block_options: _BlockOptions, name: str
) -> keras.KerasTensor:
    x = relu(conv_norm(x, filters, 3, stride, f"{name}_1"), f"{name}_1")
    return conv_norm(x, filters, 3, 1, f"{name}_2", block_options.last_gamma)


def _bottleneck(
    x: keras.KerasTensor, filters: int, stride: int, block_options: _BlockOptions, name: str
) -> keras.KerasTensor:
    first_stride, stride_of_3x3 = (1, stride) if block_options.stride_in_3x3 else (stride, 1)
    x = relu(conv_norm(x, filters, 1, first_stride, f"{name}_1"), f"{name}_1")
    x = relu(conv_norm(x, filters, 3, stride_of_3x3, f"{name}_2"), f"{name}_2")
    return conv_norm(x, 4 * filters, 1, 1, f"{name}_3", block_options.last_gamma)
