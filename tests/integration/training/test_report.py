"""The report about a run contains all results and loads nothing from elsewhere."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.training.analysis.test_html import MARKUP, Elements
from training.analysis.report import write_report
from training.atomic_files import write_json
from training.errors import TrainingError
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.settings import with_settings
from training.runs.run_folder import Run, start_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that is so short that the network makes mistakes, with a class name that contains HTML."""
    recipe = with_settings(find_recipe("xo"), {"epochs": "1", "limit": "300", "learning_rate": "0.003"})
    run = trainer.train(recipe, tmp_path_factory.mktemp("runs"), lambda line: None, name="letters")
    write_json(run.folder / "run.json", run.info() | {"labels": ["X", MARKUP]})
    return run


@pytest.fixture(scope="module")
def page(run: Run) -> Elements:
    path = write_report(run.folder, None, None)
    assert path == run.folder / "report.html"
    return Elements(path.read_text(encoding="utf-8"))


def test_no_external_resources_are_used_and_labels_are_escaped(page: Elements) -> None:
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    addresses = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href")]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert MARKUP in page.text


def test_images_are_valid_and_have_alternative_texts(page: Elements) -> None:
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    for attrs in images:
        Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))).verify()
        assert attrs["alt"]


def test_figures_equal_those_of_the_run(run: Run, page: Elements) -> None:
    assert f"letters, run {run.folder.name}" in page.text
    test = run.metrics()["test"]
    assert f"{test['accuracy']:.2%} of 300 test images correct" in page.text
    confusion = np.array(test["confusion"])
    wrong = int(confusion.sum() - confusion.trace())
    assert wrong > 0
    images = [attrs for tag, attrs in page.tags if attrs.get("alt") == "a test image"]
    assert len(images) == min(wrong, 24)
    assert f"{wrong} of 300 are wrong" in page.text
    assert re.search(r"predicted .* \(\d+\.\d%\)", page.text)
    assert "3 kernels of 3x3 pixels" in page.text
    assert "CONV3-3" in page.text  # a row of the layer table
    assert "758" in page.text  # the parameters of all layers


def test_the_page_is_written_to_the_given_path(run: Run, tmp_path: Path) -> None:
    assert write_report(run.folder, tmp_path / "page.html", None).read_bytes()
    with pytest.raises(TrainingError, match="could not be written"):
        write_report(run.folder, tmp_path / "missing" / "page.html", None)


def test_folders_without_a_finished_run_are_rejected(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not the folder of a run"):
        write_report(tmp_path / "none", None, None)
    unfinished = start_run(tmp_path, replace(run.recipe(), epochs=5), {})
    with pytest.raises(TrainingError, match="has not finished"):
        write_report(unfinished.folder, None, None)
