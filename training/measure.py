"""`convoy-train evaluate`: the accuracy of a published version, or of a run, on a whole test set."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service.errors import BrokenVersion
from service.manifest import FILE_NAME, Precision, read_manifest
from training import datasets
from training.datasets.base import Dataset
from training.errors import TrainingError
from training.evaluate import Scores, evaluate_network
from training.noise import with_noise
from training.runs import open_run
from training.service_path import ServicePath
from training.sources import load_network


def report(
    source: Path, dataset_name: str | None, data_dir: Path | None, precision: Precision, noise: float = 0.0
) -> Iterator[str]:
    """Lines for the user about a version's folder or a run's; `noise` is put on the pictures. Raises TrainingError."""
    if (source / FILE_NAME).is_file():
        labels, scores = _measure_version(source, dataset_name, data_dir, precision, noise)
    else:
        labels, scores = _measure_run(source, dataset_name, data_dir, noise)
    noisy = f" with noise of sigma {noise:g}" if noise else ""
    pictures = f"{scores.pictures:,} test pictures{noisy}"
    yield f"accuracy {scores.accuracy:.4f} over {pictures}, cross entropy {scores.loss:.4f}"
    width = max(map(len, labels))
    for label, accuracy in zip(labels, scores.per_class_accuracy, strict=True):
        yield f"{label:{width}}  {'no pictures' if accuracy is None else f'{accuracy:.4f}'}"


def _measure_version(
    folder: Path, dataset_name: str | None, data_dir: Path | None, precision: Precision, noise: float
) -> tuple[tuple[str, ...], Scores]:
    try:
        manifest = read_manifest(folder)
        variant = manifest.variant(precision)
        if variant is None:
            raise TrainingError(f"{folder} has no {precision} graph; it has {_precisions(manifest.variants)}.")
        path = ServicePath(folder / variant.file, manifest.input, manifest.preprocessing, manifest.classes)
    except BrokenVersion as error:
        raise TrainingError(f"{error.message} {error.hint}") from error
    dataset = _dataset(dataset_name or manifest.provenance.dataset, data_dir, manifest.classes, noise)
    return dataset.labels, path.score(dataset.test)


def _measure_run(
    folder: Path, dataset_name: str | None, data_dir: Path | None, noise: float
) -> tuple[tuple[str, ...], Scores]:
    run = open_run(folder)
    network = load_network(run.model_path)
    classes = network.output_shape[-1]
    dataset = _dataset(dataset_name or run.recipe().dataset, data_dir, classes, noise)
    if dataset.test.shape != network.input_shape[1:]:
        raise TrainingError(f"The network takes {network.input_shape[1:]}, {dataset.name} has {dataset.test.shape}.")
    return dataset.labels, evaluate_network(network, dataset.test, np.arange(len(dataset.test)), classes)


def _dataset(name: str | None, data_dir: Path | None, classes: int, noise: float) -> Dataset:
    if name is None:
        raise TrainingError("The manifest names no data set: give --dataset.")
    dataset = datasets.load(name, data_dir)
    if len(dataset.labels) != classes:
        raise TrainingError(f"The network has {classes} classes, {name} has {len(dataset.labels)}.")
    return with_noise(dataset, noise)


def _precisions(variants: list) -> str:
    return ", ".join(variant.precision for variant in variants)
