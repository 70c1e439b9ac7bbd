"""What can be exported: a finished run of ours, or any Keras image classifier in a file."""

from dataclasses import dataclass
from pathlib import Path

import keras

from service.model_store.manifest import Preprocessing
from training.data import load_dataset
from training.data.datasets.base import Dataset
from training.data.load_dataset import DEFAULT, DataOptions
from training.errors import TrainingError
from training.export.serving_model import input_of
from training.recipes.base import Recipe
from training.runs.run_folder import Run, open_run


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
    argument: str | None = None
    """What `convoy-train export` is given for it, where that is not its name."""

    @property
    def recipe(self) -> Recipe | None:
        return None if self.run is None else self.run.recipe()


def open_source(path: Path, dataset_name: str | None, data_options: DataOptions = DEFAULT) -> Source:
    """A run's folder, or a `.keras` (or `.h5`) file, optionally with a data set to measure it on.

    Raises TrainingError for a run that has not finished, a file that is no Keras model, and missing data.
    """
    if path.is_dir():
        return _from_run(open_run(path), data_options)
    model = load_network(path)
    if dataset_name is None and data_options.folder is None:
        return Source(path.name, model)
    dataset = load_dataset.for_network(dataset_name, data_options, input_of(model), Preprocessing(), None)
    return Source(path.name, model, dataset.labels, dataset)


def load_network(path: Path) -> keras.Model:
    """A Keras network without its optimiser. Raises TrainingError."""
    if not path.is_file():
        raise TrainingError(f"{path} does not exist; give the folder of a run, or a .keras file.")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the file's contents run into
        first_line = str(error).strip().partition("\n")[0]
        raise TrainingError(f"{path} cannot be loaded as a Keras model: {first_line}") from error


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, UTF-8. Raises TrainingError for an unreadable file and for empty lines."""
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    if "" in labels:
        raise TrainingError(f"{path} has an empty line {labels.index('') + 1}; it needs one label a line.")
    return labels


def labels_for(source: Source, labels_file: Path | None, classes: int) -> tuple[str, ...]:
    """The labels to publish: the file's, else the source's own. Raises TrainingError when their number is wrong."""
    labels = source.labels if labels_file is None else read_labels(labels_file)
    if labels is None:
        raise TrainingError(f"The network's {classes} classes have no names: give --labels FILE, one a line.")
    if len(labels) != classes:
        raise TrainingError(
            f"{labels_file or source.name} has {len(labels)} labels; the network has {classes} classes."
        )
    return labels


def _from_run(run: Run, data_options: DataOptions) -> Source:
    if not run.finished:
        command = f"convoy-train run {run.recipe().name} --resume {run.folder}"
        raise TrainingError(f"{run.folder} has not finished: go on with {command}.")
    info = run.info()
    dataset = load_dataset.for_measuring(run, data_options)
    name = f"run {run.folder.parent.name}/{run.folder.name}"
    return Source(name, load_network(run.model_path), tuple(info["labels"]), dataset, run)
