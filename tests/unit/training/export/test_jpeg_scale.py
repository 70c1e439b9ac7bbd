"""New versions decode JPEGs at a reduced scale if that is correct, and old versions can be republished with it."""

from pathlib import Path
from typing import Any

import pytest

from service.model_store.manifest import Preprocessing, read_manifest
from service.model_store.repository import Repository
from tests.support.model_versions import write_version
from training.data.load_dataset import input_spec_for
from training.errors import TrainingError
from training.export.exporter import options_for
from training.export.sources import Source
from training.export.version_folder import publish_with_jpeg_scale
from training.recipes import RECIPES

SAMPLES_PIXELS = [{"interpolation": "nearest"}, {"antialias": False}]


def test_a_version_is_published_again_as_the_next_one(tmp_path: Path) -> None:
    old = write_version(tmp_path, "pets", 3)
    (old / "card.md").write_text("# pets, version 3\n\nCats.\n")
    files = {path.name: path.read_bytes() for path in old.iterdir()}
    new = publish_with_jpeg_scale(old)
    assert new == tmp_path / "pets" / "4"
    assert {path.name: path.read_bytes() for path in old.iterdir()} == files
    before, after = read_manifest(old), read_manifest(new)
    assert not before.preprocessing.jpeg_scale
    jpeg_scale = before.preprocessing.model_copy(update={"jpeg_scale": True})
    assert after == before.model_copy(update={"preprocessing": jpeg_scale})
    assert (new / "card.md").read_text() == "# pets, version 4\n\nCats.\n"
    Repository(tmp_path).open("pets", 4)


def test_a_version_with_jpeg_scale_is_not_published_again(tmp_path: Path) -> None:
    new = publish_with_jpeg_scale(write_version(tmp_path, "pets"))
    with pytest.raises(TrainingError, match="already decodes JPEGs at a reduced scale"):
        publish_with_jpeg_scale(new)
    assert Repository(tmp_path).versions("pets") == [1, 2]


@pytest.mark.parametrize("fields", SAMPLES_PIXELS)
def test_a_version_that_samples_single_pixels_is_not_published_with_jpeg_scale(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    folder = write_version(tmp_path, "pets", preprocessing=Preprocessing(**fields))
    with pytest.raises(TrainingError, match="samples single pixels"):
        publish_with_jpeg_scale(folder)
    assert Repository(tmp_path).versions("pets") == [1]


@pytest.mark.parametrize(
    ("flags", "jpeg_scale"),
    [({}, True), ({"shorter": 64}, True), ({"like": "timm"}, True), ({"like": "keras"}, False)]
    + [({key: value}, False) for fields in SAMPLES_PIXELS for key, value in fields.items()],
)
def test_exports_have_jpeg_scale_unless_they_sample_single_pixels(
    tmp_path: Path, flags: dict[str, Any], jpeg_scale: bool
) -> None:
    options = options_for(Source("net.keras", None), name="pets", models_dir=tmp_path, **flags)  # type: ignore[arg-type]
    assert options.preprocessing.jpeg_scale is jpeg_scale


@pytest.mark.parametrize("name", RECIPES)
def test_networks_are_evaluated_as_they_will_be_served(name: str) -> None:
    assert input_spec_for(RECIPES[name]).preprocessing.jpeg_scale
