"""`convoy-train evaluate`: the accuracy of a published version, or of a run, on a test set or on a folder of images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from service.model_store.manifest import MANIFEST_FILE, Precision, Variant, read_manifest
from training.data import load_dataset
from training.data.datasets.base import Dataset
from training.data.datasets.noise import with_noise
from training.data.load_dataset import DataOptions
from training.errors import TrainingError, service_errors_as_training_errors
from training.export.keras_files import load_network
from training.export.labels import read_labels
from training.export.serving_pipeline import ServingPipeline
from training.fit.scores import Scores, evaluate_network
from training.runs.run_folder import open_run


def evaluate_source(
    source: Path,
    dataset_name: str | None,
    data_options: DataOptions,
    precision: Precision,
    noise: float = 0.0,
    flip: bool = False,
) -> Iterator[str]:
    """Yields lines for the user with the scores of a version folder or a run folder.

    `noise` is the standard deviation of Gaussian noise on pixels in 0..1. With `flip`, the probabilities of each image
    are averaged with those of its mirror image. Raises TrainingError.
    """
    if (source / MANIFEST_FILE).is_file():
        dataset, scores = _measure_version(source, dataset_name, data_options, precision, noise, flip)
    else:
        dataset, scores = _measure_run(source, dataset_name, data_options, noise, flip)
    noise_text = f" with noise of sigma {noise:g}" if noise else ""
    flip_text = ", each averaged with its mirror image" if flip else ""
    images = f"{scores.images:,} {'test' if dataset.is_test_set else 'given'} images{noise_text}{flip_text}"
    yield f"accuracy {scores.accuracy:.4f} over {images}, cross entropy {scores.loss:.4f}"
    if not dataset.is_test_set:
        yield "These are all images of the folder; the network may have been trained on some of them."
    if dataset.note:
        yield f"note on these images: {dataset.note}"
    width = max(map(len, dataset.labels))
    for label, accuracy in zip(dataset.labels, scores.per_class_accuracy, strict=True):
        yield f"{label:{width}}  {'no images' if accuracy is None else f'{accuracy:.4f}'}"


def _measure_version(
    folder: Path,
    dataset_name: str | None,
    data_options: DataOptions,
    precision: Precision,
    noise: float,
    flip: bool,
) -> tuple[Dataset, Scores]:
    with service_errors_as_training_errors():
        manifest = read_manifest(folder)
        variant = manifest.variant(precision)
        if variant is None:
            raise TrainingError(f"{folder} has no {precision} graph; it has {_precision_names(manifest.variants)}.")
        pipeline = ServingPipeline.from_manifest(folder / variant.file, manifest)
    if flip and manifest.flip_averaged:
        raise TrainingError(f"{folder} already averages over mirror images: leave out --flip.")
    labels = read_labels(folder / manifest.labels.file)
    name = dataset_name or manifest.provenance.dataset
    dataset = load_dataset.for_network(name, data_options, manifest.input, manifest.preprocessing, labels)
    if noise and dataset.preprocessing.resize == "shorter":
        raise TrainingError("--noise on a version needs images of the network's input size: evaluate the run instead.")
    dataset = with_noise(_check_class_count(dataset, manifest.classes), noise)
    return dataset, pipeline.score(dataset.test, flip)


def _measure_run(
    folder: Path, dataset_name: str | None, data_options: DataOptions, noise: float, flip: bool
) -> tuple[Dataset, Scores]:
    run = open_run(folder)
    network = load_network(run.model_path)
    if dataset_name is None and data_options.folder is None:
        dataset = load_dataset.for_evaluation(run, data_options)
    else:
        input_spec = load_dataset.input_spec_for(run.recipe())
        labels = tuple(run.info()["labels"])
        dataset = load_dataset.for_network(
            dataset_name, data_options, input_spec.input, input_spec.preprocessing, labels
        )
    dataset = with_noise(_check_class_count(dataset, network.output_shape[-1]), noise)
    if dataset.test.shape != network.input_shape[1:]:
        raise TrainingError(
            f"The network takes images of {network.input_shape[1:]}; {dataset.name} has {dataset.test.shape}."
        )
    indices = np.arange(len(dataset.test))
    return dataset, evaluate_network(network, dataset.test, indices, len(dataset.labels), flip)


def _check_class_count(dataset: Dataset, classes: int) -> Dataset:
    if len(dataset.labels) != classes:
        raise TrainingError(f"The network has {classes} classes; {dataset.name} has {len(dataset.labels)}.")
    return dataset


def _precision_names(variants: Sequence[Variant]) -> str:
    return ", ".join(variant.precision for variant in variants)
