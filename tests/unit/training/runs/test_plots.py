"""Plots of a run are small valid images, reproducible, and legible for many classes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.runs import plots
from training.runs.plots import plot_comparison, plot_confusion, plot_curves

HISTORY = [
    {"epoch": float(e), "loss": 1 / e, "accuracy": 1 - 1 / e, "val_loss": 1.1 / e, "val_accuracy": 0.5} for e in (1, 2)
]
MAX_BYTES = 100_000


def ink_fraction(path: Path) -> float:
    """Returns the fraction of pixels that are not white."""
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


@pytest.mark.parametrize("validation", [True, False])
def test_curves(tmp_path: Path, validation: bool) -> None:
    history = [{k: v for k, v in row.items() if validation or not k.startswith("val")} for row in HISTORY]
    plot_curves(history, tmp_path / "a.png")
    plot_curves(history, tmp_path / "b.png")
    assert 0.01 < ink_fraction(tmp_path / "a.png") < 0.5
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").stat().st_size < MAX_BYTES


@pytest.mark.parametrize("epochs", [1, 2, 3, 200])
def test_the_axis_of_epochs_has_whole_numbers(epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    history = [{"epoch": float(epoch), "loss": 1.0, "accuracy": 0.5} for epoch in range(1, epochs + 1)]
    plot_curves(history, tmp_path / "a.png")
    plot_comparison({"run": history}, tmp_path / "b.png")
    assert len(figures) == 2
    for axes in (axes for figure in figures for axes in figure.axes):
        left, right = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_confusion(tmp_path: Path, classes: int) -> None:
    confusion = (np.eye(classes, dtype=int) * 9 + 1).tolist()
    plot_confusion(confusion, [f"class {i}" for i in range(classes)], tmp_path / "a.png")
    assert ink_fraction(tmp_path / "a.png") > 0.05
    assert (tmp_path / "a.png").stat().st_size < MAX_BYTES


def test_a_class_without_images_is_blank(tmp_path: Path) -> None:
    plot_confusion([[5, 0], [0, 0]], ["a", "b"], tmp_path / "a.png")
    assert ink_fraction(tmp_path / "a.png") > 0.05
