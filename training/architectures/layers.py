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
