"""The documentation's tables match the code, its links lead somewhere, and its example image is drawn by a script."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documentation import GENERATED_TABLES, PAGES, ROOT, regenerated, table_names

DATA = Path(__file__).parents[2] / "data"


LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MAX_README_LINES = 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_tables_are_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert text == regenerated(text), "run: make docs"


def test_each_generated_table_is_on_one_page() -> None:
    assert sorted(name for page in PAGES for name in table_names(page.read_text())) == sorted(GENERATED_TABLES)


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall((ROOT / "README.md").read_text())}
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= linked


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
