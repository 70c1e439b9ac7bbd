"""What lies in a version folder beside its graph, for graphs that no Keras network here was made into."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import onnx

from service.manifest import (
    File,
    Input,
    Manifest,
    Parity,
    Preprocessing,
    Provenance,
    Variant,
    sha256_of,
    write_manifest,
)
from training import backend, plots
from training.card import Facts, write_card
from training.datasets.base import Dataset
from training.evaluate import Scores
from training.graph import parameters_of
from training.samples import write_samples
from training.sources import Source

GRAPH = "model.onnx"
LABELS = "labels.txt"
CONFUSION = "confusion.png"


@dataclass(frozen=True)
class Made:
    """What manifest and card tell of a graph. `scores` are on the test set of `dataset`, through the service's path."""

    name: str
    version: int
    expects: Input
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    parity: Parity
    architecture: str
    source: str
    command: str
    dataset: Dataset | None = None
    scores: Scores | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def fill(folder: Path, made: Made) -> None:
    """Writes labels, samples, manifest and card beside the graph that lies in the folder."""
    (folder / LABELS).write_text("".join(f"{label}\n" for label in made.labels), encoding="utf-8")
    manifest = _manifest(folder, made)
    write_manifest(manifest, folder)
    if made.scores is not None:
        plots.plot_confusion(made.scores.confusion, made.labels, folder / CONFUSION)
    source = Source(made.source, None, made.labels, made.dataset)
    write_card(folder, Facts(made.name, made.version, manifest, made.labels, source, made.scores, made.command))


def _manifest(folder: Path, made: Made) -> Manifest:
    scores, graph = made.scores, folder / GRAPH
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
        parameters=parameters_of(onnx.load(graph)),
        variants=[variant],
        samples=write_samples(folder, made.expects, len(made.labels), {"float32": GRAPH}),
        metrics={**measured, **made.metrics},
        provenance=_provenance(made),
    )


def _provenance(made: Made) -> Provenance:
    return Provenance(
        source=made.source,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        architecture=made.architecture,
        dataset=None if made.dataset is None else made.dataset.name,
        dataset_note=None if made.dataset is None else made.dataset.note,
        libraries=backend.library_versions(),
    )
