"""Writes small files of Keras 2 and their predictions. Needs a Python with tf_keras, which no environment here has.

The network is that of Keras' tutorial on image classification, as HDF5 and as SavedModel.
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


def main() -> None:
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3))
    course = tutorial()
    course.save(FOLDER / "tutorial.h5")
    course.save(FOLDER / "tutorial_saved_model")
    np.savez_compressed(
        FOLDER / "answers.npz",
        images=images.astype(np.uint8),
        tutorial=course.predict(images[:, :16, :16].astype(np.float32)),
    )


if __name__ == "__main__":
    main()
