"""Opens the sources of exports: a finished run, a Keras file, or a Keras Applications network.

The pixel preprocessing of each application is defined in training/architectures/keras_applications.py. It becomes part
of the exported network.
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
from training.export.prepare_network import with_size
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
"""Side of the square images that each application was trained on; DEFAULT_SIDE_PX for all others."""


@dataclass(frozen=True)
class Source:
    """A network to export, with its origin, labels and data."""

    name: str
    """Name for the model card: the run's or the file's name, without folders of this machine."""
    model: keras.Model | None
    """None if the graph was not made from a Keras network."""
    labels: tuple[str, ...] | None = None
    dataset: Dataset | None = None
    run: Run | None = None
    cli_argument: str | None = None
    """The source's argument of `convoy-train export`, if it differs from the name."""

    @property
    def recipe(self) -> Recipe | None:
        return None if self.run is None else self.run.recipe()


def open_source(
    path: Path,
    dataset_name: str | None,
    data_options: DataOptions = DEFAULT_OPTIONS,
    load_options: LoadOptions = DEFAULT_LOAD_OPTIONS,
    size: tuple[int, int] | None = None,
) -> Source:
    """Opens a run's folder, a `.keras` or `.h5` file or a SavedModel folder, optionally with a data set for the
    measurement. `size` is height and width in pixels, for networks that accept any size.

    Raises TrainingError for an unfinished run, a file that is not a Keras model, and missing data.
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
    model = with_size(model, size)
    dataset = load_dataset.for_network(dataset_name, data_options, input_of(model), DEFAULT_PREPROCESSING, None)
    return Source(path.name, model, dataset.labels, dataset)


def labels_for(source: Source, labels_file: Path | None, classes: int) -> tuple[str, ...]:
    """Returns the labels of the file, or else of the source. Raises TrainingError if their number is wrong."""
    labels = source.labels if labels_file is None else read_class_labels(labels_file).labels
    if labels is None:
        raise TrainingError(
            f"The network's {classes} classes have no names: use --labels FILE with one label per line."
        )
    if len(labels) != classes:
        given = labels_file or (source.name if source.dataset is None else f"The data set {source.dataset.name}")
        raise TrainingError(f"{given} has {len(labels)} labels, but the network has {classes} classes.")
    return labels


def _from_run(run: Run, data_options: DataOptions) -> Source:
    if not run.is_finished:
        command = f"convoy-train run {run.recipe().name} --resume {run.folder}"
        raise TrainingError(f"{run.folder} has not finished. Resume it with: {command}")
    info = run.info()
    dataset = load_dataset.for_evaluation(run, data_options)
    name = f"run {run.folder.parent.name}/{run.folder.name}"
    return Source(name, load_network(run.model_path), tuple(info["labels"]), dataset, run)


def open_application(name: str, weights: Path | None, labels_file: Path | None) -> Source:
    """Opens an application for export, with weights and labels from files or from Keras.

    Keras reads its weights and labels from its cache (~/.keras) or downloads them. Raises TrainingError if they are
    unavailable.
    """
    if name not in APPLICATIONS:
        raise TrainingError(f"There is no application {name!r}: {suggestion(name, APPLICATIONS)}")
    labels = _imagenet_labels() if labels_file is None else read_class_labels(labels_file).labels
    if len(labels) != IMAGENET_CLASSES:
        raise TrainingError(f"{labels_file} has {len(labels)} labels; {name} has {IMAGENET_CLASSES} classes.")
    model = build_application(name, weights or IMAGENET_WEIGHTS)
    cli_argument = f"--from-keras-applications {name}"
    return Source(f"keras.applications.{name}", model, labels, cli_argument=cli_argument)


def build_application(name: str, weights: Path | str | None) -> keras.Model:
    """Builds the application for pixels 0..255 in RGB; `weights` is a file, "imagenet", or None for random ones.

    Raises TrainingError if the weights are unavailable or do not fit.
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
                f"{weights_path} does not exist: --weights needs a file with the weights of {name}, including its last "
                "layer."
            )
        load_weights(model, name, weights_path, "with its last layer")
    if APPLICATIONS[name].bgr:
        swap_red_and_blue(model)
    return model


def _imagenet_labels() -> tuple[str, ...]:
    """Returns ImageNet's class names in order, from Keras' file."""
    in_order = np.arange(IMAGENET_CLASSES, 0, -1, dtype=np.float32)[np.newaxis]
    try:
        [rows] = keras.applications.imagenet_utils.decode_predictions(in_order, top=IMAGENET_CLASSES)
    except Exception as error:  # Keras raises plain Exception when a download fails
        raise TrainingError(
            f"The names of ImageNet's classes could not be downloaded: {error}. Use --labels with "
            "imagenet_class_index.json or with a file of one label per line."
        ) from error
    return tuple(label for _, label, _ in rows)
