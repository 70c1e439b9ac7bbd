"""The README's tables match the code, and its example image is drawn by the project's own script."""

import runpy
from pathlib import Path

import numpy as np
from PIL import Image

from tests.readme import README, regenerated

DATA = Path(__file__).parents[2] / "data"


def test_the_generated_parts_are_up_to_date() -> None:
    text = README.read_text()
    assert text == regenerated(text), "run: make readme"


def test_seven_png_is_what_its_script_draws() -> None:
    generated = runpy.run_path(str(DATA / "draw_seven.py"))["seven"]()
    with Image.open(DATA / "seven.png") as committed:
        assert (committed.mode, committed.size) == ("L", (28, 28))
        np.testing.assert_array_equal(np.asarray(committed), np.asarray(generated))


def test_the_seven_is_laid_out_like_a_digit_of_mnist() -> None:
    ink = np.asarray(Image.open(DATA / "seven.png")).astype(float)
    rows, columns = np.nonzero(ink)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
    center = [(ink * axis).sum() / ink.sum() for axis in np.mgrid[0:28, 0:28]]
    np.testing.assert_allclose(center, 13.5, atol=1)
