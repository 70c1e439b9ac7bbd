"""Opens what can be exported: a finished run, a Keras file, or a network of keras.applications with ImageNet's classes.

The pixel preprocessing of each application is defined in training/architectures/keras_applications.py; here it is
folded into the network.
"""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from training.architectures.keras_applications import (
    APPLICATIONS,
    IMAGENET_CLASSES,
    IMAGENET_WEIGHTS,
    load_weights,
    preprocess,
    swap_red_and_blue,
    with_downloaded_weights,
)
from training.data import load_dataset
from training.data.datasets.base import DEFAULT_PREPROCESSING, Dataset
from training.data.load_dataset import DEFAULT_OPTIONS, DataOptions
from training.errors import TrainingError
from training.export.keras_files import (
    DEFAULT_LOAD_OPTIONS,
    SAVED_MODEL_FILE,
    LoadOptions,
    is_saved_model,
    load_network,
)
from training.export.labels import read_class_labels
from training.export.serving_model import input_of
from training.recipes.base import Recipe, suggestion
from training.runs.run_folder import RECIPE_FILE, Run, open_run

DEFAULT_SIDE_PX = 224
SIDES_PX = {
    **dict.fromkeys(("InceptionV3", "InceptionResNetV2", "Xception"), 299),
    **dict.fromkeys(("EfficientNetV2M", "EfficientNetV2L"), 480),
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
}
"""Side of the square images that each was trained on; DEFAULT_SIDE_PX for all others."""


@dataclass(frozen=True)
class Source:
    """A network with what is known about it."""

    name: str
    """What the card calls it: the run, or the file's name; no folder of this machine."""
    model: keras.Model | None
    """None where it is no Keras network of which the graph was made."""
    labels: tuple[str, ...] | None = None
    dataset: Dataset | None = None
    run: Run | None = None
    cli_argument: str | None = None
    """Its argument of `convoy-train export`, where that is not its name."""

    @property
    def recipe(self) -> Recipe | None:
        return None if self.run is None else self.run.recipe()


def open_source(
    path: Path,
    dataset_name: str | None,
    data_options: DataOptions = DEFAULT_OPTIONS,
    load_options: LoadOptions = DEFAULT_LOAD_OPTIONS,
) -> Source:
    """A run's folder, a `.keras` or `.h5` file or a SavedModel folder, optionally with a data set to measure it on.

    Raises TrainingError for a run that has not finished, a file that is no Keras model, and missing data.
    """
    if path.is_dir() and not is_saved_model(path):
        if not (path / RECIPE_FILE).is_file():
            raise TrainingError(
                f"{path} is not the folder of a run (it has no {RECIPE_FILE}), nor a SavedModel (it has no "
                f"{SAVED_MODEL_FILE})."
            )
        return _from_run(open_run(path), data_options)
    model = load_network(path, load_options)
    if dataset_name is None and data_options.folder is None:
        return Source(path.name, model)
    dataset = load_dataset.for_network(dataset_name, data_options, input_of(model), DEFAULT_PREPROCESSING, None)
    return Source(path.name, model, dataset.labels, dataset)


def labels_for(source: Source, labels_file: Path | None, classes: int) -> tuple[str, ...]:
    """The labels to publish: the file's, else the source's own. Raises TrainingError when their number is wrong."""
    labels = source.labels if labels_file is None else read_class_labels(labels_file).labels
    if labels is None:
        raise TrainingError(f"The network's {classes} classes have no names: give --labels FILE, one a line.")
    if len(labels) != classes:
        raise TrainingError(
            f"{labels_file or source.name} has {len(labels)} labels; the network has {classes} classes."
        )
    return labels


def _from_run(run: Run, data_options: DataOptions) -> Source:
    if not run.is_finished:
        command = f"convoy-train run {run.recipe().name} --resume {run.folder}"
        raise TrainingError(f"{run.folder} has not finished: go on with {command}.")
    info = run.info()
    dataset = load_dataset.for_evaluation(run, data_options)
    name = f"run {run.folder.parent.name}/{run.folder.name}"
    return Source(name, load_network(run.model_path), tuple(info["labels"]), dataset, run)


def open_application(name: str, weights: Path | None, labels_file: Path | None) -> Source:
    """The application as something to export. Weights and labels are Keras' own, or in files.

    Keras takes its own from its cache (~/.keras) or downloads them. Raises TrainingError when they cannot be had.
    """
    if name not in APPLICATIONS:
        raise TrainingError(f"Keras has no application {name!r} that is known here: {suggestion(name, APPLICATIONS)}")
    labels = _imagenet_labels() if labels_file is None else read_class_labels(labels_file).labels
    if len(labels) != IMAGENET_CLASSES:
        raise TrainingError(f"{labels_file} has {len(labels)} labels; {name} has {IMAGENET_CLASSES} classes.")
    model = build_application(name, weights or IMAGENET_WEIGHTS)
    cli_argument = f"--from-keras-applications {name}"
    return Source(f"keras.applications.{name}", model, labels, cli_argument=cli_argument)


def build_application(name: str, weights: Path | str | None) -> keras.Model:
    """Builds the application for pixels 0..255 in RGB; `weights` is a file, "imagenet", or None for random ones.

    Raises TrainingError when they cannot be had or do not fit.
    """
    side_px = SIDES_PX.get(name, DEFAULT_SIDE_PX)
    image = keras.Input((side_px, side_px, 3), name="image")
    x = preprocess(name, image)
    application = getattr(keras.applications, name)
    if weights == IMAGENET_WEIGHTS:
        model = with_downloaded_weights(name, lambda: application(weights=IMAGENET_WEIGHTS, input_tensor=x))
    else:
        model = application(weights=None, input_tensor=x)
    if weights not in (None, IMAGENET_WEIGHTS):
        weights_path = Path(weights)
        if not weights_path.is_file():
            raise TrainingError(
                f"{weights_path} is not there: --weights needs a file of {name}'s weights, its last layer too."
            )
        load_weights(model, name, weights_path, "with its last layer")
    if APPLICATIONS[name].bgr:
        swap_red_and_blue(model)
    return model


def _imagenet_labels() -> tuple[str, ...]:
    """ImageNet's names in their order, from Keras' own file."""
    in_order = np.arange(IMAGENET_CLASSES, 0, -1, dtype=np.float32)[np.newaxis]
    try:
        [rows] = keras.applications.imagenet_utils.decode_predictions(in_order, top=IMAGENET_CLASSES)
    except Exception as error:  # as above
        raise TrainingError(
            f"The names of ImageNet's classes could not be downloaded: {error}. Give imagenet_class_index.json, or a "
            "file of one label a line, with --labels."
        ) from error
    return tuple(label for _, label, _ in rows)
