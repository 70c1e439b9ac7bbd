"""The residual networks for 32x32 images: He, Zhang, Ren, Sun, "Deep residual learning", 2015, section 4.2."""

from typing import Any

import keras
from keras import layers, ops

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

WIDTHS = (16, 32, 64)


def cifar_resnet(
    depth: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    normalization: Normalization = UNIT_RANGE,
    width: float = 1.0,
    zero_init_last_gamma: bool = False,
    drop_path: float = 0.0,
) -> keras.Model:
    """6n + 2 layers: a 3x3 convolution, three stages of n two-layer blocks with 16, 32 and 64 filters, and one FC.

    Shortcuts have no parameters (the paper's option A). `width` scales the number of filters in every layer. With
    `zero_init_last_gamma` the residual branch of every block starts at zero, so that the block initially passes on only
    its shortcut (Goyal et al. 2017). `drop_path` is the rate at which training drops the last block (stochastic depth);
    the rate falls linearly towards the first block. Output: logits. Raises ValueError for a depth that is not 6n + 2.
    """
    blocks, remainder = divmod(depth - 2, 6)
    if remainder or blocks < 1:
        raise ValueError(f"A CIFAR ResNet has 6n + 2 layers (8, 14, 20, ...), not {depth}.")
    last_gamma = "zeros" if zero_init_last_gamma else "ones"
    image, x = normalized_input(input_shape, normalization)
    x = relu(conv_norm(x, round(WIDTHS[0] * width), 3, 1, "stem"), "stem")
    drop_rates = iter(linear_drop_rates(drop_path, len(WIDTHS) * blocks))
    for stage, filters in enumerate(WIDTHS, start=2):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 2 and block == 1 else 1
            x = _block(x, round(filters * width), stride, last_gamma, next(drop_rates), f"conv{stage}_{block}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, logits_layer(x, classes), name=f"cifar_resnet{depth}")


def _block(
    x: keras.KerasTensor, filters: int, stride: int, last_gamma: str, drop_rate: float, name: str
) -> keras.KerasTensor:
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)  # selects every second pixel
        shortcut = PadChannels(filters, name=f"{name}_pad_channels")(shortcut)
    x = relu(conv_norm(x, filters, 3, stride, f"{name}_1"), f"{name}_1")
    x = conv_norm(x, filters, 3, 1, f"{name}_2", last_gamma)
    x = drop_path(x, drop_rate, name)
    return relu(layers.Add(name=f"{name}_add")([shortcut, x]), name)


@keras.saving.register_keras_serializable(package="convoy")
class PadChannels(layers.Layer):
    """Appends channels of zeros up to `channels`: (batch, height, width, fewer) -> (batch, height, width, channels)."""

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return ops.pad(x, [(0, 0), (0, 0), (0, 0), (0, self.channels - x.shape[-1])])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return *input_shape[:-1], self.channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}
