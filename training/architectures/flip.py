"""Averages the probabilities of a network over each image and its mirror image."""

import keras
from keras import ops


def average_over_flip(network: keras.Model) -> keras.Model:
    """Returns a network whose probabilities are the mean over each image and its mirror image, at twice the cost.

    Both go through the network as one batch of twice the size, so that an exported graph contains each layer once.
    """
    image = keras.Input(network.input_shape[1:], name="image")
    both = ops.concatenate([image, image[:, :, ::-1]], axis=0)
    probabilities = ops.reshape(network(both, training=False), (2, -1, network.output_shape[-1]))
    return keras.Model(image, ops.mean(probabilities, axis=0), name=network.name)
