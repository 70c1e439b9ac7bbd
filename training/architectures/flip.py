"""A network that sees each image as it is and mirrored, and answers with the mean of both probabilities."""

import keras
from keras import ops


def average_over_flip(network: keras.Model) -> keras.Model:
    """The network of probabilities with twice the cost: the mean over every image and its mirror image.

    Both are one batch of twice the size, so that an exported graph has each layer once.
    """
    image = keras.Input(network.input_shape[1:], name="image")
    both = ops.concatenate([image, image[:, :, ::-1]], axis=0)
    probabilities = ops.reshape(network(both, training=False), (2, -1, network.output_shape[-1]))
    return keras.Model(image, ops.mean(probabilities, axis=0), name=network.name)
