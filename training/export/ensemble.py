"""`convoy-train ensemble`: several versions as one, which answers with the mean of their probabilities.

AlexNet's seven networks did so. The result is a version like any other; the service knows nothing of its members.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from service.errors import ConvoyError
from service.model_store.manifest import FILE_NAME
from service.model_store.repository import Repository, VersionFolder
from training.data import datasets, load_dataset
from training.data.datasets.base import Dataset
from training.data.datasets.image_folder import Drawn
from training.data.load_dataset import DEFAULT, DataOptions
from training.errors import TrainingError
from training.export.graph.merge import averaged
from training.export.parity import Sample, check_parity, sample_folder, sample_split
from training.export.publish import publish
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source
from training.export.version_folder import GRAPH, VersionContents, fill
from training.fit.callbacks import Say
from training.fit.scores import Scores


@dataclass(frozen=True)
class Tried:
    """On what an ensemble is measured: a data set, or else any images, for parity alone.

    Without `dataset`, `data_options.folder` and `images` it is the data set that all members name.
    """

    dataset: str | None = None
    data_options: DataOptions = DEFAULT
    images: Path | None = None


@dataclass(frozen=True)
class _Members:
    """The versions, and the mean of their answers, each by its own session."""

    versions: tuple[VersionFolder, ...]
    graphs: tuple[Path, ...]
    paths: tuple[ServingPipeline, ...]

    @property
    def first(self) -> VersionFolder:
        return self.versions[0]

    def predict(self, images: NDArray[np.floating], verbose: int = 0) -> NDArray[np.float32]:
        """Mean probabilities for prepared images, as the parity check asks for them."""
        return np.mean([path.run(images.astype(np.uint8), 64) for path in self.paths], axis=0)


def ensemble(folders: Sequence[Path], name: str, models_dir: Path, tried: Tried, say: Say) -> Path:
    """Publishes the mean of versions as the next version of a model; gives its folder.

    Raises TrainingError when the members do not take and give the same, and when nothing is there to try it on.
    """
    if len(folders) < 2:
        raise TrainingError("An ensemble has two members or more: name their version folders.")
    try:
        members = _opened(folders)
        _check_same(members.versions)
        dataset = _dataset(members, tried)
        return publish(models_dir, name, lambda to, version: _fill(to, name, version, members, dataset, tried, say))
    except ConvoyError as error:
        raise TrainingError(f"{error.message} {error.hint}") from error


def _opened(folders: Sequence[Path]) -> _Members:
    versions = []
    for folder in (folder.resolve() for folder in folders):
        if not (folder / FILE_NAME).is_file() or not folder.name.isdecimal():
            raise TrainingError(f"{folder} is not a version's folder, such as models/mnist-lenet5/1.")
        versions.append(Repository(folder.parent.parent).open(folder.parent.name, int(folder.name)))
    for version in versions:
        if version.manifest.variant("float32") is None:
            raise TrainingError(f"{version.path} has no float32 graph, which an ensemble is made of.")
    graphs = tuple(version.graph(version.manifest.variant("float32")) for version in versions)
    paths = [
        ServingPipeline(graph, version.manifest.input, version.manifest.preprocessing, version.manifest.classes)
        for graph, version in zip(graphs, versions, strict=True)
    ]
    return _Members(tuple(versions), graphs, tuple(paths))


def _check_same(versions: Sequence[VersionFolder]) -> None:
    """Raises TrainingError naming the first thing in which a member differs from the first one."""
    first = versions[0]
    for other in versions[1:]:
        for what, one, two in (
            ("takes other images", first.manifest.input, other.manifest.input),
            ("brings images to its input in another way", first.manifest.preprocessing, other.manifest.preprocessing),
            ("has other labels", first.labels, other.labels),
        ):
            if one != two:
                raise TrainingError(f"{_named(other)} {what} than {_named(first)}: members must agree.")


def _dataset(members: _Members, tried: Tried) -> Dataset | None:
    """None where only images are given: then nothing is measured."""
    if tried.images is not None and tried.dataset is None and tried.data_options.folder is None:
        return None
    name, manifest, labels = _dataset_name(members, tried), members.first.manifest, members.first.labels
    drawn = _drawn(members)
    dataset = load_dataset.for_network(name, tried.data_options, manifest.input, manifest.preprocessing, labels, drawn)
    if len(dataset.labels) != len(labels):
        raise TrainingError(f"The members have {len(labels)} classes, {name} has {len(dataset.labels)}.")
    return dataset


def _drawn(members: _Members) -> Drawn | None:
    """What all members have kept for the test of a folder of images; None where that is not known, or not one."""
    provenances = [version.manifest.provenance for version in members.versions]
    told = {(p.division.test_share, p.seed) if p.division else (None, None) for p in provenances}
    test_share, seed = told.pop()
    return None if told or test_share is None or seed is None else Drawn(test_share, seed)


def _dataset_name(members: _Members, tried: Tried) -> str:
    if tried.data_options.folder is not None:
        return datasets.FOLDER
    named = {tried.dataset or version.manifest.provenance.dataset for version in members.versions}
    name = named.pop() if len(named) == 1 else None
    if name is None:
        raise TrainingError(
            "The members name no common data set: give --dataset, --data FOLDER, or --images FOLDER, which measures "
            "nothing."
        )
    if name == datasets.FOLDER:
        raise TrainingError(
            "The members were trained on a folder of images: name it with --data, or give --images FOLDER, which "
            "measures nothing."
        )
    return name


def _fill(
    folder: Path, name: str, version: int, members: _Members, dataset: Dataset | None, tried: Tried, say: Say
) -> None:
    manifest, labels = members.first.manifest, members.first.labels
    graphs = [onnx.load(graph) for graph in members.graphs]
    onnx.save(averaged(graphs, manifest.input.shape, manifest.classes), folder / GRAPH)
    path = ServingPipeline(folder / GRAPH, manifest.input, manifest.preprocessing, manifest.classes)
    parity = check_parity(members, path, _sample(members, dataset, tried))
    say(f"parity: largest difference {parity.max_abs_difference:.2g} over {parity.images} images")
    scores = None if dataset is None else path.score(dataset.test)
    _tell(members, scores, say)
    made = VersionContents(
        name=name,
        version=version,
        expects=manifest.input,
        preprocessing=manifest.preprocessing,
        labels=labels,
        parity=parity,
        architecture=f"ensemble of {len(members.versions)}",
        source=Source("the mean of " + ", ".join(map(_named, members.versions)), None, labels, dataset),
        command=_command(members, name, tried),
        scores=scores,
    )
    fill(folder, made)


def _command(members: _Members, name: str, tried: Tried) -> str:
    words = ["convoy-train ensemble", *(f"models/{_named(version)}" for version in members.versions), f"--name {name}"]
    if tried.data_options.folder is not None:
        words.append("--data FOLDER")
    elif tried.dataset is not None:
        words.append(f"--dataset {tried.dataset}")
    words += ["--images FOLDER"] * (tried.images is not None)
    return " ".join(words)


def _tell(members: _Members, scores: Scores | None, say: Say) -> None:
    for version in members.versions:
        accuracy = version.manifest.variant("float32").test_accuracy
        if accuracy is not None:
            say(f"{_named(version)}: test accuracy {accuracy:.4f}")
    if scores is not None:
        say(f"together: test accuracy {scores.accuracy:.4f} over {scores.images} images")


def _sample(members: _Members, dataset: Dataset | None, tried: Tried) -> Sample:
    manifest = members.first.manifest
    if tried.images is not None:
        sample = sample_folder(tried.images, manifest.input, manifest.preprocessing)
    else:
        sample = sample_split(dataset.test, manifest.input, manifest.preprocessing)
    return Sample(sample.names, sample.prepared, sample.prepared)


def _named(version: VersionFolder) -> str:
    return f"{version.model}/{version.version}"
