"""Implements `convoy-train ensemble`: publishes one version that returns the mean of several versions' probabilities.

AlexNet's seven networks were combined in this way. To the service, an ensemble is a version like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from service.model_store.repository import VersionFolder
from training.data import datasets, load_dataset
from training.data.datasets.base import Dataset
from training.data.datasets.folder_test_split import TestSplitSpec
from training.data.load_dataset import DEFAULT_OPTIONS, DataOptions
from training.errors import TrainingError, service_errors_as_training_errors
from training.export.graph.merge import merge_average
from training.export.parity import ParitySample, check_parity, describe_parity, sample_folder, sample_split
from training.export.publish import publish
from training.export.published_split import split_seed_of
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source
from training.export.version_folder import GRAPH_FILE, VersionContents, open_version, write_version_files
from training.fit.callbacks import Log
from training.fit.scores import Scores


@dataclass(frozen=True)
class EvaluationData:
    """The images for measuring an ensemble: a data set, or unlabeled `images` for the parity check only.

    The default is the data set in the manifests of all members.
    """

    dataset: str | None = None
    data_options: DataOptions = DEFAULT_OPTIONS
    images: Path | None = None


@dataclass(frozen=True)
class _Members:
    """The versions and their sessions, which compute the reference for the merged graph."""

    versions: tuple[VersionFolder, ...]
    graphs: tuple[Path, ...]
    pipelines: tuple[ServingPipeline, ...]

    @property
    def first(self) -> VersionFolder:
        return self.versions[0]

    def predict(self, images: NDArray[np.floating], verbose: int = 0) -> NDArray[np.float32]:
        """Returns the mean probabilities for prepared images; the interface of the parity check."""
        mean: NDArray[np.float32] = np.mean(
            [pipeline.run(images.astype(np.uint8), 64) for pipeline in self.pipelines], axis=0
        )
        return mean


def ensemble(folders: Sequence[Path], name: str, models_dir: Path, evaluation: EvaluationData, log: Log) -> Path:
    """Publishes the mean of several versions as the next version of a model; returns its folder.

    Raises TrainingError if the members' inputs, preprocessing or outputs differ, and if there are no images to
    measure on.
    """
    if len(folders) < 2:
        raise TrainingError("An ensemble needs at least two members: specify their version folders.")
    with service_errors_as_training_errors():
        members = _open_members(folders)
        _check_compatible(members.versions)
        dataset = _load_dataset(members, evaluation)
        return publish(
            models_dir, name, lambda to, number: _write_version(to, name, number, members, dataset, evaluation, log)
        )


def _open_members(folders: Sequence[Path]) -> _Members:
    versions = [open_version(folder) for folder in folders]
    graphs = []
    for version in versions:
        variant = version.manifest.variant("float32")
        if variant is None:
            raise TrainingError(f"{version.path} has no float32 graph, which an ensemble needs.")
        graphs.append(version.graph_path(variant))
    pipelines = [
        ServingPipeline.from_manifest(graph, version.manifest) for graph, version in zip(graphs, versions, strict=True)
    ]
    return _Members(tuple(versions), tuple(graphs), tuple(pipelines))


def _check_compatible(versions: Sequence[VersionFolder]) -> None:
    """Raises a TrainingError that names the first difference between a member and the first member."""
    first = versions[0]
    for other in versions[1:]:
        for difference, expected, actual in (
            ("has a different input", first.manifest.input, other.manifest.input),
            ("has different preprocessing", first.manifest.preprocessing, other.manifest.preprocessing),
            ("has different labels", first.labels, other.labels),
            ("has a different activation", first.manifest.activation, other.manifest.activation),
        ):
            if expected != actual:
                raise TrainingError(
                    f"{_version_name(other)} {difference} than {_version_name(first)}. All members must agree."
                )


def _load_dataset(members: _Members, evaluation: EvaluationData) -> Dataset | None:
    """Returns the data set for the measurement, or None if only unlabeled images are given."""
    if evaluation.images is not None and evaluation.dataset is None and evaluation.data_options.folder is None:
        return None
    name, manifest, labels = _dataset_name(members, evaluation), members.first.manifest, members.first.labels
    split = _common_split(members)
    dataset = load_dataset.for_network(
        name, evaluation.data_options, manifest.input, manifest.preprocessing, labels, split
    )
    if len(dataset.labels) != len(labels):
        raise TrainingError(f"The members have {len(labels)} classes; {name} has {len(dataset.labels)}.")
    return dataset


def _common_split(members: _Members) -> TestSplitSpec | None:
    """Returns the test split that all members share on a folder of images; None if it is unknown or differs."""
    provenances = [version.manifest.provenance for version in members.versions]
    splits = {(p.division.test_share, split_seed_of(p)) if p.division else (None, None) for p in provenances}
    test_share, seed = splits.pop()
    return None if splits or test_share is None or seed is None else TestSplitSpec(test_share, seed)


def _dataset_name(members: _Members, evaluation: EvaluationData) -> str:
    if evaluation.data_options.folder is not None:
        return datasets.FOLDER
    dataset_names = {evaluation.dataset or version.manifest.provenance.dataset for version in members.versions}
    name = dataset_names.pop() if len(dataset_names) == 1 else None
    if name is None:
        raise TrainingError(
            "The members have no data set in common: use --dataset or --data FOLDER, or --images FOLDER to publish "
            "without measuring the accuracy."
        )
    if name == datasets.FOLDER:
        raise TrainingError(
            "The members were trained on a folder of images: specify it with --data, or use --images FOLDER to publish "
            "without measuring the accuracy."
        )
    return name


def _write_version(
    folder: Path,
    name: str,
    version: int,
    members: _Members,
    dataset: Dataset | None,
    evaluation: EvaluationData,
    log: Log,
) -> None:
    manifest, labels = members.first.manifest, members.first.labels
    graphs = [onnx.load(graph) for graph in members.graphs]
    onnx.save(merge_average(graphs, manifest.input.shape, manifest.classes), folder / GRAPH_FILE)
    pipeline = ServingPipeline.from_manifest(folder / GRAPH_FILE, manifest)
    parity = check_parity(members, pipeline, _parity_sample(members, dataset, evaluation))
    log(describe_parity(parity))
    scores = None if dataset is None else pipeline.score(dataset.test)
    _report_accuracies(members, dataset, scores, log)
    contents = VersionContents(
        name=name,
        version=version,
        model_input=manifest.input,
        preprocessing=manifest.preprocessing,
        labels=labels,
        activation=manifest.activation,
        parity=parity,
        architecture=f"ensemble of {len(members.versions)}",
        source=Source("the mean of " + ", ".join(map(_version_name, members.versions)), None, labels, dataset),
        command=_command(members, name, evaluation),
        scores=scores,
    )
    write_version_files(folder, contents)


def _command(members: _Members, name: str, evaluation: EvaluationData) -> str:
    words = [
        "convoy-train ensemble",
        *(f"models/{_version_name(version)}" for version in members.versions),
        f"--name {name}",
    ]
    if evaluation.data_options.folder is not None:
        words.append("--data FOLDER")
    elif evaluation.dataset is not None:
        words.append(f"--dataset {evaluation.dataset}")
    words += ["--images FOLDER"] * (evaluation.images is not None)
    return " ".join(words)


def _report_accuracies(members: _Members, dataset: Dataset | None, scores: Scores | None, log: Log) -> None:
    for version in members.versions:
        variant = version.manifest.variant("float32")
        if variant is not None and variant.test_accuracy is not None:
            log(f"{_version_name(version)}: test accuracy {variant.test_accuracy:.4f}")
    if dataset is not None and scores is not None:
        log(f"together: {dataset.describe_accuracy(scores.accuracy, scores.images)}")


def _parity_sample(members: _Members, dataset: Dataset | None, evaluation: EvaluationData) -> ParitySample:
    manifest = members.first.manifest
    if evaluation.images is not None:
        sample = sample_folder(evaluation.images, manifest.input, manifest.preprocessing)
    else:
        assert dataset is not None, "there are images for the measurement"
        sample = sample_split(dataset.test, manifest.input, manifest.preprocessing)
    return ParitySample(sample.names, sample.prepared, sample.prepared)


def _version_name(version: VersionFolder) -> str:
    return f"{version.model}/{version.version}"
