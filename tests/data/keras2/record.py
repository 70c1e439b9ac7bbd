"""Writes small files of Keras 2, and what they answer: needs a Python with tf_keras, which no environment here has.

`keras_model.h5` of Teachable Machine is a Sequential of two; the tutorial is Keras' own for the classification of
images, as HDF5 and as SavedModel.
"""

from pathlib import Path

import numpy as np
import tf_keras as keras
from tf_keras import layers

FOLDER = Path(__file__).parent


def teachable_machine() -> keras.Model:
    image = keras.Input((24, 24, 3))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2, use_bias=False)(x)))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Add()([layers.Conv2D(4, 1, use_bias=False)(x), layers.Conv2D(4, 1)(x)])
    base = keras.Sequential([keras.Model(image, x, name="model1"), layers.GlobalAveragePooling2D()])
    head = keras.Sequential([layers.Dense(6, activation="relu"), layers.Dense(2, activation="softmax", use_bias=False)])
    model = keras.Sequential([base, head])
    model.build((None, 24, 24, 3))
    for weight in model.weights:
        random = np.random.default_rng(len(weight.name))
        weight.assign(np.ones(weight.shape) if "variance" in weight.name else 0.8 * random.normal(size=weight.shape))
    return model


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


def main() -> None:
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3))
    machine, course = teachable_machine(), tutorial()
    machine.save(FOLDER / "teachable_machine.h5")
    course.save(FOLDER / "tutorial.h5")
    course.save(FOLDER / "tutorial_saved_model")
    np.savez_compressed(
        FOLDER / "answers.npz",
        images=images.astype(np.uint8),
        teachable_machine=machine.predict(images / 127.5 - 1),
        tutorial=course.predict(images[:, :16, :16].astype(np.float32)),
    )


if __name__ == "__main__":
    main()
