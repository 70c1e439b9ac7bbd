"""The documentation's tables match the code, its links are valid, and its example image is drawn by a script."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.model_store.desired_state import DesiredState
from service.model_store.manifest import Manifest, Preprocessing
from service.settings import Settings
from tests.documentation import GENERATED_TABLES, PAGES, ROOT, metrics_table, regenerated, table_names

DATA = Path(__file__).parents[2] / "data"
MARKDOWN = sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("k8s/*.md"), *ROOT.glob("tests/*/*.md")})
OUTPUTS = {"tests/bench/gpu.md"}
"""Files that commands write and that are not in the repository."""

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MAX_README_LINES = 200
MAX_RELEASE_LINES = 60
OTHER_VARIABLES = {
    "CONVOY_DATA",
    "CONVOY_COORDINATOR",
    "CONVOY_NUM_PROCESSES",
    "CONVOY_PROCESS_ID",
    "CONVOY_JOIN_TIMEOUT_S",
}
OTHER_VARIABLES |= {"CONVOY_COMPLETE", "CONVOY_TRAIN_COMPLETE"}
"""Variables that are not settings of the service."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_tables_are_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert text == regenerated(text), "run: make docs"


def test_each_generated_table_is_on_one_page() -> None:
    assert sorted(name for page in PAGES for name in table_names(page.read_text())) == sorted(GENERATED_TABLES)


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


def test_the_changelog_of_a_release_stays_short() -> None:
    releases = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]
    assert releases
    assert all(len(release.splitlines()) <= MAX_RELEASE_LINES for release in releases)


def test_the_readme_has_one_line_for_each_package() -> None:
    rows = re.findall(r"^\| `((?:service|training)/\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    packages = [path.parent for half in ("service", "training") for path in ROOT.glob(f"{half}/*/__init__.py")]
    assert sorted(rows) == sorted(str(package.relative_to(ROOT)) for package in packages)


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_source_files_that_a_page_names_exist(page: Path) -> None:
    for path in re.findall(r"`((?:service|training|tests|k8s|requirements|docs)/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists() or path in OUTPUTS, path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_versions_of_shipped_models_that_a_page_names_exist(page: Path) -> None:
    shipped = {path.name for path in (ROOT / "models").iterdir()}
    text = page.read_text()
    named = re.findall(r"models/([\w-]+)/(\d+)\b", text)
    named += re.findall(r'"(?:model|model_name)":"([\w-]+)","(?:version|model_version)":"(\d+)"', text)
    for model, version in named:
        assert model not in shipped or (ROOT / "models" / model / version).is_dir(), f"{model}/{version}"


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a page."""
    headings = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def linked_pages(page: Path) -> set[Path]:
    """Returns the Markdown files of the repository to which a page links."""
    paths = (link.partition("#")[0] for link in LINK.findall(page.read_text()) if "://" not in link)
    return {(page.parent / path).resolve() for path in paths if path.endswith(".md")}


def test_every_page_is_at_most_two_links_from_the_readme() -> None:
    first = linked_pages(ROOT / "README.md")
    second = set().union(*map(linked_pages, first))
    assert set(PAGES) | {ROOT / "k8s/README.md", ROOT / "SECURITY.md"} <= first | second | {ROOT / "README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_and_metrics_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    settings = {f"CONVOY_{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES
    assert set(re.findall(r"\bCONVOY_[A-Z_]+[A-Z]\b", text)) <= settings
    metrics = set(re.findall(r"`(\w+)` \(", metrics_table()))
    assert set(re.findall(r"`(convoy_[a-z_]+[a-z])[`{]", text)) <= metrics


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_state_files_that_a_page_shows_are_valid(page: Path) -> None:
    for block in re.findall(r"```json\n(\{\"models\": .*?)```", page.read_text(), re.DOTALL):
        assert DesiredState.model_validate_json(block).models


def test_the_manifest_is_documented_field_by_field() -> None:
    text = (ROOT / "docs/models-and-versions.md").read_text()
    section = text.partition("\n## The manifest\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(Manifest.model_fields)
    assert all(f"`{name}`" in section for name in Preprocessing.model_fields)


def test_some_page_shows_a_state_file() -> None:
    assert any('```json\n{"models": ' in page.read_text() for page in PAGES)


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
