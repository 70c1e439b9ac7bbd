"""Writes the files of a version folder beside its graph: labels, golden samples, manifest, plots and model card."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from service.model_store import golden_samples
from service.model_store.checksums import sha256_of
from service.model_store.manifest import (
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
from training import keras_setup
from training.data.datasets.image_folder import division_digest
from training.export.graph.editor import Graph, parameters_of
from training.export.graph.optimize import pool_behind_filters
from training.export.model_card import Facts, write_card
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source
from training.fit.scores import Scores
from training.runs import plots
from training.runs.run_folder import Run

GRAPH = "model.onnx"
LABELS = "labels.txt"
CONFUSION = "confusion.png"
CURVES = "curves.png"


@dataclass(frozen=True)
class VersionContents:
    """What manifest and card tell of a graph. `scores` are on its source's test set, through the service's path."""

    name: str
    version: int
    expects: Input
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    parity: Parity
    architecture: str
    source: Source
    command: str | None = None
    """What made it, where that is not `convoy-train export`."""
    scores: Scores | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    extra_graphs: dict[str, ExtraGraph] = field(default_factory=dict)


def fill(folder: Path, made: VersionContents) -> None:
    """Writes labels, samples, manifest, plots and card beside the graph that lies in the folder."""
    (folder / LABELS).write_text("".join(f"{label}\n" for label in made.labels), encoding="utf-8")
    manifest = _manifest(folder, made)
    write_manifest(manifest, folder)
    if made.source.run is not None:
        plots.plot_curves(made.source.run.history(), folder / CURVES)
    if made.scores is not None:
        plots.plot_confusion(made.scores.confusion, made.labels, folder / CONFUSION)
    write_card(folder, Facts(made.name, made.version, manifest, made.labels, made.source, made.scores, made.command))


def _manifest(folder: Path, made: VersionContents) -> Manifest:
    scores, network, graph = made.scores, made.source.model, folder / GRAPH
    measured = {} if scores is None else {"test_accuracy": scores.accuracy, "test_loss": scores.loss}
    variant = Variant(
        file=GRAPH,
        sha256=sha256_of(graph),
        precision="float32",
        bytes=graph.stat().st_size,
        test_accuracy=None if scores is None else scores.accuracy,
        parity=made.parity,
    )
    return Manifest(
        input=made.expects,
        preprocessing=made.preprocessing,
        classes=len(made.labels),
        labels=File(file=LABELS, sha256=sha256_of(folder / LABELS)),
        parameters=_parameters_of(graph) if network is None else network.count_params(),
        variants=[variant],
        extra_graphs=made.extra_graphs,
        samples=write_samples(folder, made.expects, len(made.labels), {"float32": GRAPH}),
        metrics={**measured, **made.metrics},
        provenance=_provenance(made),
    )


def _parameters_of(graph: Path) -> int:
    """The network's, without what a rewrite of its graph has added to make it faster."""
    model = onnx.load(graph)
    pool_behind_filters(Graph(model))
    return parameters_of(model)


def _provenance(made: VersionContents) -> Provenance:
    recipe, dataset = made.source.recipe, made.source.dataset
    return Provenance(
        source=made.source.name,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        architecture=made.architecture,
        recipe=None if recipe is None else recipe.name,
        dataset=None if dataset is None else dataset.name,
        dataset_note=None if dataset is None else dataset.note,
        seed=None if recipe is None else recipe.seed,
        division=None if made.source.run is None else _division(made.source.run),
        libraries=keras_setup.library_versions(),
    )


def _division(run: Run) -> SplitSpec:
    recipe, origin = run.recipe(), run.info()["dataset"].get("origin", {})
    return SplitSpec(
        validation=recipe.validation,
        limit=recipe.limit,
        test_share=origin.get("test_share"),
        digest=division_digest(origin),
    )


def write_samples(folder: Path, expects: Input, classes: int, graphs: Mapping[Precision, str]) -> File:
    """Runs the graphs of a version in its folder and stores what they answer; gives the manifest's entry.

    Raises BrokenVersion when the service could not load one.
    """
    images = generated_images(expects)
    answers = {
        precision: ServingPipeline(folder / graph, expects, Preprocessing(), classes).run(images, len(images))
        for precision, graph in graphs.items()
    }
    golden_samples.Samples(images, answers).write(folder / golden_samples.FILE)
    return File(file=golden_samples.FILE, sha256=sha256_of(folder / golden_samples.FILE))


def generated_images(expects: Input) -> NDArray[np.uint8]:
    """Ramps and coarse and fine mosaics of chance, uint8 (8, height, width, channels); the same every time."""
    height, width, channels = expects.shape
    random = np.random.default_rng(0)
    down, across = np.linspace(0, 255, height)[:, None, None], np.linspace(0, 255, width)[:, None]
    images = [np.broadcast_to(down, expects.shape), np.broadcast_to(255 - across, expects.shape)]
    for tiles in (2, 3, 5, 8, 13, 21):
        mosaic = random.integers(0, 256, (tiles, tiles, channels))
        rows, columns = (np.arange(side) * tiles // side for side in (height, width))
        images.append(mosaic[rows][:, columns])
    return np.stack(images).astype(np.uint8)
