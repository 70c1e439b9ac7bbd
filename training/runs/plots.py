"""Plots of runs as PNG files: learning curves of one or several runs, and confusion matrices. No display is needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.atomic_files import atomic_write
from training.runs.run_folder import HistoryRow

MAX_CLASSES_WITH_TEXT = 20


def plot_curves(history: Sequence[HistoryRow], path: Path) -> None:
    """Plots loss and accuracy over the epochs, for training and, if available, validation."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for column, label in ((name, "training"), (f"val_{name}", "validation")):
            if column in history[0]:
                axes.plot([row["epoch"] for row in history], [row[column] for row in history], label=label, marker=".")
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def plot_comparison(histories: Mapping[str, Sequence[HistoryRow]], path: Path) -> None:
    """Plots loss and accuracy of several runs by name, on validation images, or on training images if there is no
    validation.

    Losses are drawn even if the runs have different loss functions. Only the accuracies can be compared then.
    """
    figure = Figure(figsize=(11, 4 + 0.2 * len(histories)), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for run, history in histories.items():
            column = f"val_{name}" if f"val_{name}" in history[0] else name
            label = run if column.startswith("val") else f"{run} (training)"
            axes.plot([row["epoch"] for row in history], [row[column] for row in history], label=label, marker=".")
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save_figure(figure, path)


def plot_confusion(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Plots true classes as rows and predictions as columns. Cells are shaded by their fraction of the row, and have
    counts if these fit."""
    counts = np.asarray(confusion)
    row_fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(4 + 0.35 * len(labels), 16)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(row_fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(labels) <= MAX_CLASSES_WITH_TEXT:
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        for (row, column), count in np.ndenumerate(counts):
            text_color = "white" if row_fractions[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=text_color, fontsize=8)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG without Matplotlib's version, so that the same figures give the same file."""
    canvas = FigureCanvasAgg(figure)
    atomic_write(path, lambda to: canvas.print_png(to, metadata={"Software": None}))  # type: ignore[no-untyped-call]
    figure.clear()
