"""Writes small Keras 2 files and their predictions. Needs a Python with tf_keras, which no environment of the project
contains.

`tutorial` is the network of Keras' tutorial on image classification, as HDF5 and as SavedModel. `teachable_machine.h5`
has the structure of Teachable Machine's keras_model.h5: a Sequential of two Sequential networks, the first of which
contains a part of a MobileNetV2.
"""

from pathlib import Path

import numpy as np
import tf_keras as keras
from tf_keras import layers

FOLDER = Path(__file__).parent


def tutorial() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.Dense(3),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def teachable_machine() -> keras.Model:
    """Returns a network for pixels from -1 to 1, with two blocks instead of MobileNetV2's 17."""
    image = keras.Input((24, 24, 3))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(4, 3, 2, padding="same", use_bias=False)(image)))
    for _ in range(2):
        block = layers.DepthwiseConv2D(3, use_bias=False)(layers.ZeroPadding2D()(x))
        block = layers.ReLU(6.0)(layers.BatchNormalization()(block))
        x = layers.Add()([x, layers.BatchNormalization()(layers.Conv2D(4, 1, use_bias=False)(block))])
    features = keras.Sequential([keras.Model(image, x), layers.GlobalAveragePooling2D()])
    for weights in features.weights:  # statistics of 0 and 1 would not show whether they are read
        if "batch_normalization" in weights.name:
            weights.assign(weights + np.random.default_rng(0).uniform(0, 0.3, weights.shape))
    head = keras.Sequential(
        [layers.Dense(8, activation="relu", input_shape=(4,)), layers.Dense(2, use_bias=False, activation="softmax")]
    )
    return keras.Sequential([features, head])


def main() -> None:
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3))
    course = tutorial()
    course.save(FOLDER / "tutorial.h5")
    course.save(FOLDER / "tutorial_saved_model")
    machine = teachable_machine()
    machine.save(FOLDER / "teachable_machine.h5")
    np.savez_compressed(
        FOLDER / "answers.npz",
        images=images.astype(np.uint8),
        tutorial=course.predict(images[:, :16, :16].astype(np.float32)),
        teachable_machine=machine.predict(images / 127.5 - 1),
    )


if __name__ == "__main__":
    main()
