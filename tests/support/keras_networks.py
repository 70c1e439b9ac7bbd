"""A network that compiles in a second, with batch normalisation in it; none of the zoo's is as small."""

import keras

from training.architectures.layers import UNIT, Normalization, conv_norm, logits, pixels, relu


def normalised(
    input_shape: tuple[int, int, int] = (24, 24, 1), classes: int = 2, normalization: Normalization = UNIT
) -> keras.Model:
    image, x = pixels(input_shape, normalization)
    x = relu(conv_norm(x, 4, 3, 2, "only"), "only")
    return keras.Model(image, logits(keras.layers.Flatten()(x), classes))
