"""The plot of a confusion matrix is dark where predictions are, for few and for many classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.batch_jobs.confusion_plot import BLUE, MARGIN_PX, MAX_CELL_PX, plot_confusion


def plot_pixels(counts: dict[tuple[str, str], int], labels: list[str], path: Path) -> np.ndarray:
    plot_confusion(counts, labels, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def cell_color(pixels: np.ndarray, row: int, column: int, classes: int) -> tuple[int, ...]:
    """Returns the color of a cell next to its number."""
    left = pixels.shape[1] - MARGIN_PX - classes * MAX_CELL_PX + column * MAX_CELL_PX
    top = pixels.shape[0] - MARGIN_PX - classes * MAX_CELL_PX + row * MAX_CELL_PX
    return tuple(pixels[top + 2, left + 2].tolist())


def test_right_answers_are_dark_on_the_diagonal_and_wrong_ones_pale(tmp_path: Path) -> None:
    counts = {("a", "a"): 10, ("b", "b"): 9, ("b", "c"): 1, ("c", "c"): 10}
    pixels = plot_pixels(counts, ["a", "b", "c"], tmp_path / "c.png")
    assert cell_color(pixels, 0, 0, 3) == BLUE
    assert cell_color(pixels, 0, 1, 3) == (255, 255, 255)
    correct, wrong = cell_color(pixels, 1, 1, 3), cell_color(pixels, 1, 2, 3)
    assert BLUE < correct < wrong < (255, 255, 255)


def test_names_stand_above_their_own_columns(tmp_path: Path) -> None:
    labels = ["i", "a label that is long", "i "]
    pixels = plot_pixels({(name, name): 1 for name in labels}, labels, tmp_path / "c.png")
    left = pixels.shape[1] - MARGIN_PX - 3 * MAX_CELL_PX
    header = pixels[: pixels.shape[0] - MARGIN_PX - 3 * MAX_CELL_PX - 1, left : left + 3 * MAX_CELL_PX]
    dark_pixels = [(header[:, index * MAX_CELL_PX : (index + 1) * MAX_CELL_PX] < 128).sum() for index in range(3)]
    assert dark_pixels[1] > 3 * max(dark_pixels[0], dark_pixels[2]) > 0


@pytest.mark.parametrize("classes", [1, 40, 300, 1000])
def test_any_number_of_classes_fits(tmp_path: Path, classes: int) -> None:
    labels = [f"class {index}" for index in range(classes)]
    pixels = plot_pixels({(name, name): 1 for name in labels}, labels, tmp_path / "c.png")
    assert max(pixels.shape) < 1400
    assert (pixels == BLUE).all(axis=-1).sum() >= classes
