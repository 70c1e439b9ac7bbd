"""The image of a confusion matrix: dark where the answers are, for a few classes and for many."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.batch_jobs.confusion_plot import BLUE, CELL, MARGIN, draw_confusion


def drawn(pairs: dict[tuple[str, str], int], shown: list[str], path: Path) -> np.ndarray:
    draw_confusion(pairs, shown, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def corner_of_cell(pixels: np.ndarray, row: int, column: int, classes: int) -> tuple[int, ...]:
    """The colour of a cell beside its number."""
    left = pixels.shape[1] - MARGIN - classes * CELL + column * CELL
    top = pixels.shape[0] - MARGIN - classes * CELL + row * CELL
    return tuple(pixels[top + 2, left + 2].tolist())


def test_right_answers_are_dark_on_the_diagonal_and_wrong_ones_pale(tmp_path: Path) -> None:
    pairs = {("a", "a"): 10, ("b", "b"): 9, ("b", "c"): 1, ("c", "c"): 10}
    pixels = drawn(pairs, ["a", "b", "c"], tmp_path / "c.png")
    assert corner_of_cell(pixels, 0, 0, 3) == BLUE
    assert corner_of_cell(pixels, 0, 1, 3) == (255, 255, 255)
    right, wrong = corner_of_cell(pixels, 1, 1, 3), corner_of_cell(pixels, 1, 2, 3)
    assert BLUE < right < wrong < (255, 255, 255)


def test_names_stand_above_their_own_columns(tmp_path: Path) -> None:
    names = ["i", "a label that is long", "i "]
    pixels = drawn({(name, name): 1 for name in names}, names, tmp_path / "c.png")
    left = pixels.shape[1] - MARGIN - 3 * CELL
    above = pixels[: pixels.shape[0] - MARGIN - 3 * CELL - 1, left : left + 3 * CELL]
    ink = [(above[:, at * CELL : (at + 1) * CELL] < 128).sum() for at in range(3)]
    assert ink[1] > 3 * max(ink[0], ink[2]) > 0


@pytest.mark.parametrize("classes", [1, 40, 300, 1000])
def test_any_number_of_classes_fits(tmp_path: Path, classes: int) -> None:
    names = [f"class {at}" for at in range(classes)]
    pixels = drawn({(name, name): 1 for name in names}, names, tmp_path / "c.png")
    assert max(pixels.shape) < 1400
    assert (pixels == BLUE).all(axis=-1).sum() >= classes
