"""Held-out images are those of the version's run if its manifest records them. Errors name damaged images."""

from pathlib import Path

import numpy as np
import pytest

from service.model_store.checksums import sha256_of
from service.model_store.manifest import Input, Preprocessing, SplitSpec, read_manifest, write_manifest
from service.model_store.repository import Repository, VersionFolder
from tests.support.images import COLORS, write_image_folder
from tests.support.model_versions import write_version
from training.data import datasets
from training.data.datasets.base import Dataset
from training.data.datasets.folder_test_split import split_digest
from training.data.datasets.image_files import InputSpec
from training.data.datasets.image_folder import FolderOptions
from training.data.load_dataset import DataOptions
from training.data.splits import split_indices
from training.errors import TrainingError
from training.export.quantization.calibration import load_calibration_data
from training.recipes.base import Recipe

SHARE = 0.3
SEED = 3


def write_labeled_version(
    root: Path, shape: tuple[int, int, int], labels: tuple[str, ...], **provenance: object
) -> VersionFolder:
    """Writes net/1 with these labels and this provenance."""
    folder = write_version(root, "net", 1, shape, len(labels), preprocessing=Preprocessing())
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    manifest = read_manifest(folder)
    updated = manifest.provenance.model_copy(update={"seed": SEED, **provenance})
    file = manifest.labels.model_copy(update={"sha256": sha256_of(folder / "labels.txt")})
    write_manifest(manifest.model_copy(update={"labels": file, "provenance": updated}), folder)
    return Repository(root).open("net", 1)


def xo_version(root: Path, **provenance: object) -> VersionFolder:
    return write_labeled_version(root, (24, 24, 1), ("X", "O"), dataset="xo", **provenance)


def folder_version(root: Path, **provenance: object) -> VersionFolder:
    return write_labeled_version(root, (8, 8, 3), tuple(COLORS), dataset="folder", **provenance)


def training_dataset(version: VersionFolder, photos: Path) -> Dataset:
    """Returns the folder's images as a run with SHARE and SEED loads them."""
    input_spec = InputSpec(version.manifest.input, version.manifest.preprocessing)
    return datasets.load("folder", folder=photos, folder_options=FolderOptions(input_spec, SHARE, SEED))


def recipe(**settings: object) -> Recipe:
    return Recipe(name="any", dataset="any", architecture="any", seed=SEED, **settings)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("own") / "photos", *COLORS, count=500)


def test_the_held_out_images_of_the_run_are_used(tmp_path: Path) -> None:
    version = xo_version(tmp_path, recipe="xo", division=SplitSpec(validation=1000, limit=800))
    images = load_calibration_data(version, None, DataOptions(), 100)
    run = split_indices(images.dataset, recipe(validation=1000, limit=800))
    assert images.held_out.tolist() == run.validation.tolist()
    assert images.calibration.tolist() == run.train[:100].tolist()
    assert (images.has_training_split, images.has_published_test) == (True, True)


def test_a_version_with_only_a_recipe_name_uses_its_split(tmp_path: Path) -> None:
    images = load_calibration_data(xo_version(tmp_path, recipe="xo"), None, DataOptions(), 100)
    assert len(images.held_out) == 500
    assert (images.has_training_split, images.has_published_test) == (True, True)


@pytest.mark.parametrize("validation", [0, 100])
def test_too_few_held_out_by_the_run_are_not_passed_off_as_such(tmp_path: Path, validation: int) -> None:
    images = load_calibration_data(
        xo_version(tmp_path, division=SplitSpec(validation=validation)), None, DataOptions(), 100
    )
    assert len(images.held_out) == 800
    assert not images.has_training_split
    assert images.has_published_test


def test_a_folders_images_are_divided_as_its_run_had_them(tmp_path: Path, photos: Path) -> None:
    dataset = training_dataset(folder_version(tmp_path / "a"), photos)
    division = SplitSpec(validation=0.3, test_share=SHARE, digest=split_digest(dataset.origin))
    images = load_calibration_data(
        folder_version(tmp_path / "b", division=division), None, DataOptions(folder=photos), 100
    )
    assert images.dataset.origin == dataset.origin
    assert images.held_out.tolist() == split_indices(dataset, recipe(validation=0.3)).validation.tolist()
    assert (images.has_training_split, images.has_published_test) == (True, True)


def test_images_held_out_by_path_with_a_split_seed_of_their_own_are_found_again(tmp_path: Path, photos: Path) -> None:
    settings = {"validation": 0.1, "holdout": 0.3}
    input_spec = InputSpec(Input(height=8, width=8, channels=3), Preprocessing())
    options = FolderOptions(input_spec, SHARE, SEED, split_by_path=True)
    dataset = datasets.load("folder", folder=photos, folder_options=options)
    division = SplitSpec(**settings, test_share=SHARE, digest=split_digest(dataset.origin), seed=SEED, by_path=True)
    version = folder_version(tmp_path, division=division, seed=SEED + 1)
    images = load_calibration_data(version, None, DataOptions(folder=photos), 100)
    run = split_indices(dataset, recipe(**settings))
    assert images.held_out.tolist() == run.holdout.tolist()
    assert images.calibration.tolist() == run.train[:100].tolist()
    assert (images.has_training_split, images.has_published_test) == (True, True)


def test_other_images_are_not_taken_for_those_of_the_run(tmp_path: Path, photos: Path) -> None:
    division = SplitSpec(validation=0.3, test_share=SHARE, digest="0" * 64)
    for number, split_spec in enumerate((division, division.model_copy(update={"digest": None}), None)):
        version = folder_version(tmp_path / str(number), division=split_spec)
        images = load_calibration_data(version, None, DataOptions(folder=photos), 100)
        assert (images.has_training_split, images.has_published_test) == (False, False)
        if split_spec is not None:  # even if images were added, test images are not training images
            assert images.dataset.origin == training_dataset(version, photos).origin
    assert not load_calibration_data(
        folder_version(tmp_path / "c"), "folder", DataOptions(folder=photos), 1
    ).has_published_test


def test_damaged_images_are_named_or_left_out(tmp_path: Path) -> None:
    photos = write_image_folder(tmp_path / "photos", *COLORS, count=500)
    version = folder_version(tmp_path / "models")
    whole = load_calibration_data(version, None, DataOptions(folder=photos), 100)
    files = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    test_files = whole.dataset.origin["test_files"]
    training_files = [name for name in files if name not in test_files]
    damaged = [training_files[whole.held_out[5]], training_files[whole.calibration[7]], test_files[3]]
    for name in damaged:
        (photos / name).write_bytes(b"")
    with pytest.raises(
        TrainingError, match=r"cannot be read: 3\. Repair or remove them, or add --skip-unreadable"
    ) as caught:
        load_calibration_data(version, None, DataOptions(folder=photos), 100)
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == damaged
    rest = load_calibration_data(version, None, DataOptions(folder=photos, skip_unreadable=True), 100)
    assert rest.held_out.tolist() == np.delete(whole.held_out, 5).tolist()
    assert rest.calibration.tolist() == np.delete(whole.calibration, 7).tolist()
    assert len(rest.dataset.test) == len(test_files) - 1
