"""Keras' applications as they are, ImageNet's thousand classes: with their pixels' preprocessing folded in, to export.

What each wants done to its pixels stands in training/architectures/keras_applications.py, which takes them without
their last layer.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from training.architectures.keras_applications import APPLICATIONS, DOWNLOADED, INSIDE, swap_red_and_blue
from training.errors import TrainingError
from training.export.labels import read_classes
from training.export.sources import Source
from training.recipes.base import nearest

SIDE = 224
OTHER_SIDES = {
    **dict.fromkeys(("InceptionV3", "InceptionResNetV2", "Xception"), 299),
    **dict.fromkeys(("EfficientNetV2M", "EfficientNetV2L"), 480),
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
}
"""Of the square that each was trained on."""
CLASSES = 1000


def open_application(name: str, weights: Path | None, labels_file: Path | None) -> Source:
    """The application as something to export. Weights and labels are Keras' own, or in files.

    Keras takes its own from its cache (~/.keras) or downloads them. Raises TrainingError when they cannot be had.
    """
    if name not in APPLICATIONS:
        raise TrainingError(f"Keras has no application {name!r} that is known here: {nearest(name, APPLICATIONS)}")
    labels = _labels() if labels_file is None else read_classes(labels_file).labels
    if len(labels) != CLASSES:
        raise TrainingError(f"{labels_file} has {len(labels)} labels; {name} has {CLASSES} classes.")
    argument = f"--from-keras-applications {name}"
    return Source(f"keras.applications.{name}", folded(name, weights or DOWNLOADED), labels, argument=argument)


def folded(name: str, weights: Path | str | None) -> keras.Model:
    """The application taking pixels 0..255 in RGB; `weights` is a file, "imagenet", or None for ones of chance.

    Raises TrainingError when they cannot be had or do not fit.
    """
    how, side = APPLICATIONS[name], OTHER_SIDES.get(name, SIDE)
    image = keras.Input((side, side, 3), name="image")
    x = image if how == INSIDE else layers.Rescaling(list(how.scale), list(how.offset), name="preprocess")(image)
    application = getattr(keras.applications, name)
    if weights == DOWNLOADED:
        model = _downloaded(name, lambda: application(weights=DOWNLOADED, input_tensor=x))
    else:
        model = application(weights=None, input_tensor=x)
    if weights not in (None, DOWNLOADED):
        _load(model, name, Path(weights))
    if how.bgr:
        swap_red_and_blue(model)
    return model


def _downloaded(name: str, make) -> keras.Model:
    try:
        return make()
    except Exception as error:  # Keras raises plain Exception when a download fails
        raise TrainingError(
            f"The weights of {name} could not be downloaded: {error}. Give a file of them with --weights."
        ) from error


def _load(model: keras.Model, name: str, path: Path) -> None:
    if not path.is_file():
        raise TrainingError(f"{path} is not there: --weights needs a file of {name}'s weights, its last layer too.")
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises whatever the file's contents run into
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(f"{path} does not hold the weights of {name} with its last layer: {reason}") from error


def _labels() -> tuple[str, ...]:
    """ImageNet's names in their order, from Keras' own file."""
    in_order = np.arange(CLASSES, 0, -1, dtype=np.float32)[np.newaxis]
    try:
        [rows] = keras.applications.imagenet_utils.decode_predictions(in_order, top=CLASSES)
    except Exception as error:  # as above
        raise TrainingError(
            f"The names of ImageNet's classes could not be downloaded: {error}. Give imagenet_class_index.json, or a "
            "file of one label a line, with --labels."
        ) from error
    return tuple(label for _, label, _ in rows)
