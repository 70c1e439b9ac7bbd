"""Opens version folders, and writes the files next to a graph: labels, samples, manifest, plots and card."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from service.model_store import golden_samples
from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
    MANIFEST_FILE,
    Acceptance,
    Activation,
    ExtraGraph,
    File,
    Input,
    Manifest,
    Parity,
    Precision,
    Preprocessing,
    Provenance,
    SplitSpec,
    Variant,
    write_manifest,
)
from service.model_store.repository import Repository, VersionFolder
from training import keras_setup
from training.data.datasets.folder_test_split import split_digest
from training.errors import TrainingError, service_errors_as_training_errors
from training.export.acceptance import Decision
from training.export.graph.editor import Graph, count_parameters
from training.export.graph.optimize import unfold_max_pool
from training.export.model_card import CardData, write_card
from training.export.publish import publish
from training.export.quantization.precisions_section import set_version
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source
from training.fit.scores import Scores
from training.runs import plots
from training.runs.run_folder import Run

GRAPH_FILE = "model.onnx"
LABELS_FILE = "labels.txt"
CONFUSION_FILE = "confusion.png"
CURVES_FILE = "curves.png"


@dataclass(frozen=True)
class VersionContents:
    """The contents of a manifest and card.

    `scores` were measured on the source's test set through the service's pipeline.
    """

    name: str
    version: int
    model_input: Input
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    parity: Parity
    architecture: str
    source: Source
    activation: Activation = "softmax"
    command: str | None = None
    """The command that created the version, without folders of this machine."""
    scores: Scores | None = None
    decision: Decision | None = None
    """The comparison with a published version on which the acceptance was based."""
    acceptances: list[Acceptance] = field(default_factory=list)
    """Comparisons of the graph on other engines, on held-out images."""
    flip_averaged: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    extra_graphs: dict[str, ExtraGraph] = field(default_factory=dict)


def write_version_files(folder: Path, contents: VersionContents) -> None:
    """Writes labels, samples, manifest, plots and card into a folder that contains the graph."""
    (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in contents.labels), encoding="utf-8")
    manifest = _manifest(folder, contents)
    write_manifest(manifest, folder)
    if contents.source.run is not None:
        plots.plot_curves(contents.source.run.history(), folder / CURVES_FILE)
    if contents.scores is not None:
        plots.plot_confusion(contents.scores.confusion, contents.labels, folder / CONFUSION_FILE)
    write_card(
        folder,
        CardData(
            contents.name,
            contents.version,
            manifest,
            contents.labels,
            contents.source,
            contents.scores,
            contents.command,
            contents.decision,
        ),
    )


def open_version(folder: Path) -> VersionFolder:
    """Opens `folder`, models/NAME/NUMBER.

    Raises TrainingError for other folders, BrokenVersion for damaged versions.
    """
    folder = folder.resolve()
    if not (folder / MANIFEST_FILE).is_file() or not folder.name.isdecimal():
        raise TrainingError(f"{folder} is not a version's folder, such as models/mnist-lenet5/3.")
    return Repository(folder.parent.parent).open(folder.parent.name, int(folder.name))


def publish_with_jpeg_scale(folder: Path) -> Path:
    """Publishes a version as the model's next version, with `jpeg_scale` and the same graphs and figures. Returns its
    folder.

    Raises TrainingError if the version already has `jpeg_scale`, or if its preprocessing samples single pixels.
    """
    with service_errors_as_training_errors():
        version = open_version(folder)
    preprocessing = version.manifest.preprocessing
    if preprocessing.jpeg_scale:
        raise TrainingError(f"{version.path} already decodes JPEGs at a reduced scale.")
    if not preprocessing.with_jpeg_scale().jpeg_scale:
        raise TrainingError(
            f"{version.path} samples single pixels (interpolation nearest, or no antialias), which a reduced scale "
            "would change."
        )

    def write(to: Path, number: int) -> None:
        for path in version.path.iterdir():
            shutil.copy2(path, to / path.name)
        write_manifest(version.manifest.model_copy(update={"preprocessing": preprocessing.with_jpeg_scale()}), to)
        set_version(to, version.model, number)

    return publish(version.path.parent.parent, version.model, write)


def _manifest(folder: Path, contents: VersionContents) -> Manifest:
    network, graph, metrics = contents.source.model, folder / GRAPH_FILE, _measured(contents)
    variant = Variant(
        file=GRAPH_FILE,
        sha256=sha256_of(graph),
        precision="float32",
        bytes=graph.stat().st_size,
        test_accuracy=metrics.get("test_accuracy"),
        held_out_accuracy=None if contents.decision is None else contents.decision.held_out_accuracy,
        parity=contents.parity,
        acceptances=contents.acceptances,
    )
    return Manifest(
        input=contents.model_input,
        preprocessing=contents.preprocessing,
        classes=len(contents.labels),
        flip_averaged=contents.flip_averaged,
        activation=contents.activation,
        labels=File(file=LABELS_FILE, sha256=sha256_of(folder / LABELS_FILE)),
        parameters=_count_parameters(graph) if network is None else network.count_params(),
        variants=[variant],
        extra_graphs=contents.extra_graphs,
        samples=write_golden_samples(folder, contents.model_input, len(contents.labels), {"float32": GRAPH_FILE}),
        metrics={**metrics, **contents.metrics},
        provenance=_provenance(contents),
    )


def _measured(contents: VersionContents) -> dict[str, float]:
    """Returns the figures of the test set, or the figures of other images under other names."""
    scores, dataset = contents.scores, contents.source.dataset
    if scores is None:
        return {}
    if dataset is None or dataset.is_test_set:
        return {"test_accuracy": scores.accuracy, "test_loss": scores.loss}
    return {"check_accuracy": scores.accuracy, "check_images": scores.images}


def _count_parameters(graph: Path) -> int:
    """Counts the network's parameters, without the copies that `fold_max_pool` added."""
    model = onnx.load(graph)
    unfold_max_pool(Graph(model))
    return count_parameters(model)


def _provenance(contents: VersionContents) -> Provenance:
    recipe, dataset = contents.source.recipe, contents.source.dataset
    return Provenance(
        source=contents.source.name,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        architecture=contents.architecture,
        recipe=None if recipe is None else recipe.name,
        dataset=None if dataset is None else dataset.name,
        dataset_note=None if dataset is None else dataset.note,
        seed=None if recipe is None else recipe.seed,
        division=None if contents.source.run is None else _split_spec(contents.source.run),
        libraries=keras_setup.library_versions(),
    )


def _split_spec(run: Run) -> SplitSpec:
    recipe, origin = run.recipe(), run.info()["dataset"].get("origin", {})
    return SplitSpec(
        validation=recipe.validation,
        holdout=recipe.holdout,
        limit=recipe.limit,
        test_share=origin.get("test_share"),
        digest=split_digest(origin),
        seed=recipe.effective_split_seed,
        by_path=origin.get("split_by_path", False),
        test_fingerprints=origin.get("test_fingerprints"),
    )


def write_golden_samples(folder: Path, model_input: Input, classes: int, graphs: Mapping[Precision, str]) -> File:
    """Runs the graphs of a version in its folder and stores their predictions; returns the manifest's entry.

    Raises BrokenVersion if the service could not load one of them.
    """
    images = generated_images(model_input)
    predictions: dict[str, NDArray[np.float32]] = {
        precision: ServingPipeline(folder / graph, model_input, Preprocessing(), classes).run(images, len(images))
        for precision, graph in graphs.items()
    }
    golden_samples.GoldenSamples(images, predictions).write(folder / golden_samples.SAMPLES_FILE)
    return File(file=golden_samples.SAMPLES_FILE, sha256=sha256_of(folder / golden_samples.SAMPLES_FILE))


def generated_images(model_input: Input) -> NDArray[np.uint8]:
    """Returns ramps and random mosaics of two sizes, uint8 (8, height, width, channels). They are always the same."""
    height, width, channels = model_input.shape
    random = np.random.default_rng(0)
    vertical, horizontal = np.linspace(0, 255, height)[:, None, None], np.linspace(0, 255, width)[:, None]
    images: list[NDArray[Any]] = [
        np.broadcast_to(vertical, model_input.shape),
        np.broadcast_to(255 - horizontal, model_input.shape),
    ]
    for tiles in (2, 3, 5, 8, 13, 21):
        mosaic = random.integers(0, 256, (tiles, tiles, channels))
        rows, columns = (np.arange(side) * tiles // side for side in (height, width))
        images.append(mosaic[rows][:, columns])
    return np.stack(images).astype(np.uint8)
