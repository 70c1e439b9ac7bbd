"""Layers shared by the architectures, each a tiny function on Keras tensors. Knows no recipe and no dataset."""

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Normalization:
    """How pixels 0..255 become what a network sees: (pixel / 255 - mean) / std, per channel or one for all."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


UNIT = Normalization()


def pixels(
    input_shape: tuple[int, int, int], normalization: Normalization
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The network's input, pixels 0..255 of shape (height, width, channels), and its normalised form.

    The normalisation is part of the network, so that a trained file or an export can't be fed wrongly.
    """
    image = keras.Input(input_shape, name="image")
    scale = [1 / (255 * std) for std in normalization.std]
    offset = [-mean / std for mean, std in zip(normalization.mean, normalization.std, strict=True)]
    one = len(scale) == 1
    rescale = keras.layers.Rescaling(scale[0] if one else scale, offset[0] if one else offset, name="normalize")
    return image, rescale(image)


def logits(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """The last layer: one score a class, without softmax (the loss and the export add it), in float32 always."""
    return keras.layers.Dense(classes, dtype="float32", name="logits")(x)


def relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


def conv_norm(
    x: keras.KerasTensor, filters: int, size: int, stride: int, name: str, gamma: str = "ones"
) -> keras.KerasTensor:
    """Convolution without biases, then batch normalisation; weights as in He et al. 2015 ("Delving deep").

    The padding is (size - 1) / 2 on every side, as in the papers. Where it strides, "same" would pad only right and
    bottom, and the filters' centres would lie one pixel off those of a subsampled or 1x1 shortcut.
    """
    if stride > 1 and size > 1:
        x = keras.layers.ZeroPadding2D((size - 1) // 2, name=f"{name}_pad")(x)
    padding = "same" if stride == 1 else "valid"
    x = keras.layers.Conv2D(
        filters, size, stride, padding, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return batch_norm(x, f"{name}_bn", gamma)


def batch_norm(x: keras.KerasTensor, name: str, gamma: str = "ones") -> keras.KerasTensor:
    """Batch normalisation with the constants of the ResNet authors' code, not Keras' (momentum 0.99, epsilon 1e-3)."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=name)(x)
