"""Layers shared by the architectures: small functions on Keras tensors, independent of recipes and data sets."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@dataclass(frozen=True)
class Normalization:
    """The normalization of pixels 0..255: (pixel / 255 - mean) / std, with one value per channel or one for all."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


UNIT_RANGE = Normalization()


def normalized_input(
    input_shape: tuple[int, int, int], normalization: Normalization
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns the network's input, pixels 0..255 of shape (height, width, channels), and the normalized input.

    The normalization is part of the network, so that users of a saved or exported network cannot get it wrong.
    """
    image = keras.Input(input_shape, name="image")
    scale = [1 / (255 * std) for std in normalization.std]
    offset = [-mean / std for mean, std in zip(normalization.mean, normalization.std, strict=True)]
    is_uniform = len(scale) == 1
    rescale = keras.layers.Rescaling(
        scale[0] if is_uniform else scale,
        offset[0] if is_uniform else offset,
        dtype="float32",  # bfloat16 would change a pixel by up to 1.8 of 255 levels
        name="normalize",
    )
    return image, rescale(image)


def logits_layer(x: keras.KerasTensor, classes: int, **options: Any) -> keras.KerasTensor:
    """Adds the last layer: one score per class, always float32, without softmax (the loss and the export add it)."""
    return keras.layers.Dense(classes, dtype="float32", **{"name": "logits", **options})(x)


def relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


def conv_norm(
    x: keras.KerasTensor, filters: int, size: int, stride: int, name: str, gamma: str = "ones"
) -> keras.KerasTensor:
    """Adds a bias-free convolution, then batch normalization. Initial weights are as in He et al. 2015 ("Delving
    deep").

    The padding is (size - 1) / 2 on every side, as in the papers. With a stride, "same" would pad only on the right and
    at the bottom, which shifts the filters by one pixel relative to a subsampled or 1x1 shortcut.
    """
    if stride > 1 and size > 1:
        x = keras.layers.ZeroPadding2D((size - 1) // 2, name=f"{name}_pad")(x)
    padding = "same" if stride == 1 else "valid"
    x = keras.layers.Conv2D(
        filters, size, stride, padding, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return batch_normalization(x, f"{name}_bn", gamma)


def drop_path(x: keras.KerasTensor, rate: float, name: str) -> keras.KerasTensor:
    """Drops all of `x` for a random fraction `rate` of the images in training, and scales the rest by 1 / (1 - rate).

    Huang et al. 2016, "Deep networks with stochastic depth". The paper drops `x` for a whole batch, and scales in
    evaluation instead.
    """
    return keras.layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop_path")(x) if rate else x


def linear_drop_rates(last: float, blocks: int) -> list[float]:
    """Returns one rate per block, rising linearly to `last`: the linear decay rule of the same paper, section 3.

    Raises ValueError for a `last` outside [0, 1).
    """
    if not 0 <= last < 1:
        raise ValueError(f"drop_path is {last}; it must be in [0, 1).")
    return [last * block / blocks for block in range(1, blocks + 1)]


def batch_normalization(x: keras.KerasTensor, name: str, gamma: str = "ones") -> keras.KerasTensor:
    """Adds batch normalization with the constants of the ResNet authors' code, not Keras' (momentum 0.99, epsilon
    1e-3)."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=name)(x)


def alexnet_initializer() -> keras.initializers.Initializer:
    """Returns the initial weights of AlexNet (section 5) and ZFNet: normally distributed, with a standard deviation of
    0.01."""
    return keras.initializers.RandomNormal(stddev=0.01)


def hidden_layer(x: keras.KerasTensor, units: int, dropout: float, number: int, **options: Any) -> keras.KerasTensor:
    """Adds a hidden fully connected layer of AlexNet, ZFNet and VGG: "fc6", ReLU, dropout."""
    x = keras.layers.Dense(units, activation="relu", name=f"fc{number}", **options)(x)
    return keras.layers.Dropout(dropout, name=f"drop{number}")(x)


@keras.saving.register_keras_serializable(package="convoy")
class LocalResponseNormalization(keras.layers.Layer):
    """b = a / (k + alpha * sum of a^2 over `n` neighboring channels) ** beta: Krizhevsky et al. 2012, section 3.3.

    The constants are the paper's. Alpha multiplies the sum, as printed there; Caffe, PyTorch and ONNX divide alpha by
    n. The sum is a 1x1 convolution with a band of ones: 2.5 times as fast in training as n shifted copies, and twice as
    fast in onnxruntime as its LRN operator.
    """

    def __init__(self, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        squares = ops.square(x * self.alpha**0.5)  # alpha first: a^2 would overflow in half precision
        band = ops.convert_to_tensor(_band_kernel(x.shape[-1], self.n), dtype=squares.dtype)
        total = self.k + ops.conv(squares, band, padding="valid", data_format="channels_last")
        return x / _power(total, self.beta)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "n": self.n, "alpha": self.alpha, "beta": self.beta}


def _band_kernel(channels: int, n: int) -> NDArray[np.float32]:
    """Returns a 1x1 kernel, (1, 1, channels, channels), with ones where two channels are at most n // 2 apart."""
    index = np.arange(channels)
    is_neighbor = np.abs(index[:, None] - index) <= n // 2
    band: NDArray[np.float32] = is_neighbor[None, None].astype(np.float32)
    return band


def _power(x: keras.KerasTensor, exponent: float) -> keras.KerasTensor:
    """Returns x ** exponent for positive x. Uses square roots where possible, because two square roots take half the
    time of one power."""
    if exponent != 0.75:
        return ops.power(x, exponent)
    root = ops.sqrt(x)
    return root * ops.sqrt(root)
