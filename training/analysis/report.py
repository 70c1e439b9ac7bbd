"""Implements `convoy-train report`: the results of a run on one self-contained HTML page."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from service.imaging.visualization import encode_png
from training.analysis import html
from training.analysis.describe import as_table, describe_network
from training.analysis.filter_plot import draw_filters, first_layer_filters
from training.atomic_files import write_text
from training.data.batches import EvaluationBatches
from training.data.datasets.base import Split
from training.data.load_dataset import DataOptions
from training.data.splits import split_indices
from training.errors import TrainingError
from training.export.sources import open_source
from training.fit.scores import BATCH_SIZE, Scores, score, softmax
from training.recipes.base import Recipe
from training.recipes.settings import format_value
from training.runs.run_folder import Run

FILE_NAME = "report.html"
MAX_MISTAKES = 24


@dataclass(frozen=True)
class _TestedRun:
    """A run, its data set and the predictions of its network on the test images."""

    run: Run
    labels: tuple[str, ...]
    network: keras.Model
    split: Split
    indices: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def classes(self) -> NDArray[np.int64]:
        return self.split.labels[self.indices]

    def scores(self) -> Scores:
        return score(self.probabilities, self.classes)


def write_report(folder: Path, out: Path | None, data_dir: Path | None) -> Path:
    """Writes the page about the finished run in `folder` to `out`, or into `folder`. Returns the page's path.

    Raises TrainingError for a folder without a finished run, for missing data, and when the page cannot be written.
    """
    tested = _run_test(folder, data_dir)
    scores = tested.scores()
    sections = [
        _summary_section(tested, scores),
        _plots_section(tested.run),
        _mistakes_section(tested),
        _classes_section(tested.labels, scores),
        _filters_section(tested.network),
        _layers_section(tested),
        _recipe_section(tested.run),
    ]
    text = html.page(f"{tested.run.name}, run {tested.run.folder.name}", filter(None, sections))
    path = out or tested.run.folder / FILE_NAME
    write_text(path, text)
    return path


def _run_test(folder: Path, data_dir: Path | None) -> _TestedRun:
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not the folder of a run.")
    source = open_source(folder, None, DataOptions(data_dir))
    run, dataset, labels = source.run, source.dataset, source.labels
    assert run is not None, "a folder is a run"
    assert dataset is not None, "a run has its data set"
    assert labels is not None, "a run has its labels"
    assert source.model is not None, "a run has its network"
    indices = split_indices(dataset, run.recipe()).test
    batches = EvaluationBatches(dataset.test, indices, len(labels), BATCH_SIZE)
    probabilities = softmax(source.model.predict(batches, verbose=0))
    return _TestedRun(run, labels, source.model, dataset.test, indices, probabilities)


def _summary_section(tested: _TestedRun, scores: Scores) -> str:
    info, metrics = tested.run.info(), tested.run.metrics()
    counts = info["dataset"]
    lines = [
        f"{scores.accuracy:.2%} of {scores.images:,} test images correct, cross entropy {scores.loss:.4f}.",
        f"{counts['title']}: trained on {counts['training_images']:,} images, {counts['validation_images']:,} for "
        f"validation, {counts['holdout_images']:,} held out. The weights are those of epoch "
        f"{metrics['weights_of_epoch']}; training took {metrics['training_seconds']:,.0f} s.",
    ]
    if counts["note"]:
        lines.append(f"Note on these files: {counts['note']}.")
    return "\n".join(map(html.paragraph, lines))


def _plots_section(run: Run) -> str:
    curves = html.image(run.curves_path.read_bytes(), "loss and accuracy over the epochs")
    confusion = html.image(run.confusion_path.read_bytes(), "confusion matrix of the test images")
    return html.section("Curves", curves) + html.section("Confusion", confusion)


def _mistakes_section(tested: _TestedRun) -> str:
    """Returns the section with the wrong predictions that had the highest probability."""
    predicted = tested.probabilities.argmax(axis=1)
    confidence = tested.probabilities.max(axis=1)
    incorrect = np.flatnonzero(predicted != tested.classes)
    if not len(incorrect):
        return html.section("Worst mistakes", html.paragraph("There are none."))
    mistakes = incorrect[np.argsort(-confidence[incorrect], kind="stable")][:MAX_MISTAKES]
    images = tested.split.read_images(tested.indices[mistakes])
    tiles = [
        (
            html.image(encode_png(pixels), "a test image", is_pixelated=max(pixels.shape) < 100),
            f"{tested.labels[tested.classes[i]]}, predicted {tested.labels[predicted[i]]} ({confidence[i]:.1%})",
        )
        for i, pixels in zip(mistakes, images, strict=True)
    ]
    caption = f"{len(incorrect):,} of {len(predicted):,} are wrong. These {len(mistakes)} have the highest probability."
    return html.section("Worst mistakes", html.paragraph(caption), html.tiles(tiles))


def _classes_section(labels: tuple[str, ...], scores: Scores) -> str:
    header = ("class", "images", "recall", "precision", "most frequent wrong prediction")
    return html.section("Classes", html.table(header, _class_rows(labels, np.array(scores.confusion))))


def _class_rows(labels: tuple[str, ...], confusion: NDArray[np.int64]) -> Iterator[tuple[str | int, ...]]:
    for index, label in enumerate(labels):
        correct, images, predicted = (int(n) for n in (confusion[index, index], *_class_totals(confusion, index)))
        others = np.where(np.arange(len(labels)) == index, 0, confusion[index])
        mistake = f"{labels[others.argmax()]} ({others.max()})" if others.any() else ""
        yield label, images, _percent(correct, images), _percent(correct, predicted), mistake


def _class_totals(confusion: NDArray[np.int64], index: int) -> tuple[int, int]:
    return confusion[index].sum(), confusion[:, index].sum()


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else ""


def _filters_section(network: keras.Model) -> str:
    kernels = first_layer_filters(network)
    if kernels is None:
        return ""
    count, height, width, _ = kernels.shape
    caption = f"{count} kernels of {height}x{width} pixels. Gray is a weight of 0. Each kernel has its own scale."
    image = html.image(encode_png(draw_filters(kernels)), "kernels of the first layer", is_pixelated=True)
    return html.section("First layer", html.paragraph(caption), image)


def _layers_section(tested: _TestedRun) -> str:
    text = as_table(describe_network(tested.run.recipe().architecture, tested.network))
    return html.section("Layers", html.preformatted(text))


def _recipe_section(run: Run) -> str:
    recipe, info = run.recipe(), run.info()
    rows = [(field.name, format_value(getattr(recipe, field.name))) for field in fields(Recipe)]
    libraries = ", ".join(f"{name} {version}" for name, version in info["libraries"].items())
    return html.section("Recipe", html.table(("field", "value"), rows), html.paragraph(f"Made with {libraries}."))
