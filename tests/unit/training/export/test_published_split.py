"""A new run splits its images as the published version's run did, or is rejected."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.model_store.manifest import Provenance, SplitSpec
from tests.support.images import write_image_folder
from training.data import load_dataset
from training.data.datasets.base import ArraySplit, Dataset
from training.data.datasets.folder_test_split import split_digest
from training.data.load_dataset import DataOptions
from training.data.splits import split_indices
from training.errors import TrainingError
from training.export.published_split import (
    UNRECORDED_TEST_FILES,
    published_split,
    split_of_changed_folder,
    with_published_split,
)
from training.recipes import RECIPES
from training.recipes.base import Recipe

RECIPE = Recipe(name="mine", dataset="folder", architecture="lenet5", validation=0.1, holdout=0.2, seed=3)
PUBLISHED = "pets/1"
LABELS = ("blue", "red")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "photos", "red", "blue", count=60)


def provenance(photos: Path, **changes: object) -> Provenance:
    """Returns the provenance of a version that was trained with RECIPE on the current photos."""
    origin = load_dataset.for_training(RECIPE, DataOptions(folder=photos)).origin
    split_spec = SplitSpec(
        validation=RECIPE.validation,
        holdout=RECIPE.holdout,
        test_share=origin.get("test_share"),
        digest=split_digest(origin),
        seed=RECIPE.seed,
        by_path=True,
        test_fingerprints=origin.get("test_fingerprints"),
    )
    return Provenance(
        source="run mine/1",
        created_utc="2026-01-01T00:00:00Z",
        dataset="folder",
        seed=RECIPE.seed,
        division=split_spec.model_copy(update=changes),
    )


def follow(recipe: Recipe, photos: Path, published: Provenance, log: list[str] | None = None) -> Recipe:
    lines: list[str] = []
    followed = with_published_split(recipe, PUBLISHED, LABELS, published, DataOptions(folder=photos), lines.append)
    assert lines == (log or [])
    return followed


def test_another_seed_keeps_the_published_test_images(photos: Path) -> None:
    published = provenance(photos)
    options = DataOptions(folder=photos)
    before = load_dataset.for_training(RECIPE, options).origin["test_files"]
    other_seed = replace(RECIPE, seed=8, test_share=0.3)
    assert load_dataset.for_training(other_seed, options).origin["test_files"] != before
    followed = follow(other_seed, photos, published)
    assert (followed.seed, followed.split_seed, followed.test_share) == (8, 3, RECIPE.test_share)
    assert load_dataset.for_training(followed, options).origin["test_files"] == before
    assert follow(RECIPE, photos, published) == RECIPE, "the same seed changes nothing, so that a run is found again"


def test_the_seed_of_a_version_without_a_recorded_split_is_its_own() -> None:
    early = Provenance(source="run x/1", created_utc="2026-01-01T00:00:00Z", dataset="mnist", seed=5)
    recipe = RECIPES["mnist-lenet5"]
    followed = with_published_split(recipe, PUBLISHED, (), early, DataOptions(), lambda line: None)
    assert followed == replace(recipe, split_seed=5)
    for other in ({"dataset": "cifar10"}, {"seed": None}):
        published = early.model_copy(update=other)
        assert with_published_split(recipe, PUBLISHED, (), published, DataOptions(), lambda line: None) == recipe


def test_other_classes_are_rejected_before_training(photos: Path) -> None:
    published = provenance(photos)
    write_image_folder(photos, "green", count=3)
    message = r"photos and pets/1 have different classes \(new: green\), so their accuracies cannot be compared"
    with pytest.raises(TrainingError, match=message):
        follow(RECIPE, photos, published)
    shutil.rmtree(photos / "red")
    with pytest.raises(TrainingError, match=r"new: green; missing: red"):
        follow(RECIPE, photos, published)


def test_images_that_are_added_are_welcome(photos: Path) -> None:
    published = provenance(photos)
    for number in range(40):
        Image.new("RGB", (20, 20)).save(photos / "red" / f"new-{number}.png")
    follow(replace(RECIPE, seed=8), photos, published)


@pytest.mark.parametrize("change", ["gone", "changed", "renamed"])
def test_a_test_set_that_cannot_be_the_same_is_rejected(photos: Path, change: str) -> None:
    published = provenance(photos)
    test_files = load_dataset.for_training(RECIPE, DataOptions(folder=photos)).origin["test_files"]
    path = photos / test_files[2]
    if change == "gone":
        path.unlink()
    elif change == "changed":
        path.write_bytes(path.read_bytes() + b"\0")
    else:
        path.rename(path.with_name("renamed.png"))
    with pytest.raises(TrainingError) as caught:
        follow(RECIPE, photos, published)
    message = str(caught.value)
    assert f"1 of the {len(test_files)} test images of pets/1 are missing from {photos} or have changed" in message
    assert "Restore them (run.json of run mine/1 names the test images), or publish without a comparison" in message


def test_a_missing_training_image_does_not_matter(photos: Path) -> None:
    published = provenance(photos)
    test_files = load_dataset.for_training(RECIPE, DataOptions(folder=photos)).origin["test_files"]
    learnt = sorted({path.relative_to(photos).as_posix() for path in photos.rglob("*.*")} - set(test_files))
    (photos / learnt[10]).unlink()
    follow(RECIPE, photos, published)


def test_a_version_that_does_not_record_its_test_files_is_checked_by_its_digest(photos: Path) -> None:
    early = provenance(photos, test_fingerprints=None, by_path=False, holdout=0)
    follow(replace(RECIPE, seed=8), photos, early)
    Image.new("RGB", (20, 20)).save(photos / "red" / "new.png")
    follow(replace(RECIPE, seed=8), photos, early, log=[UNRECORDED_TEST_FILES])


def test_an_added_or_removed_val_folder_is_rejected(tmp_path: Path, photos: Path) -> None:
    split = tmp_path / "split"
    write_image_folder(split / "train", "red", "blue", count=30)
    write_image_folder(split / "val", "red", "blue", count=5)
    with_val, without_val = provenance(split), provenance(photos)
    follow(RECIPE, split, with_val)
    with pytest.raises(
        TrainingError, match=r"split had no val/ folder and has one now: pets/1 may have been trained on"
    ):
        follow(RECIPE, split, without_val)
    with pytest.raises(
        TrainingError, match=r"photos had a val/ folder and has none now: pets/1 may have been trained on"
    ):
        follow(RECIPE, photos, with_val)


def test_held_out_images_are_found_again_after_images_were_added(photos: Path) -> None:
    options, published = DataOptions(folder=photos), provenance(photos)
    before = load_dataset.for_training(RECIPE, options)
    expected = split_indices(before, RECIPE)
    found = published_split(before, published)
    np.testing.assert_array_equal(found.holdout, expected.holdout)
    np.testing.assert_array_equal(found.validation, expected.validation)
    for number in range(40):
        Image.new("RGB", (20, 20)).save(photos / "red" / f"new-{number}.png")
    after = load_dataset.for_training(RECIPE, options)
    assert published_split(after, published) is None
    found = split_of_changed_folder(after, published)
    learnt = {before.split_paths[index] for index in expected.train}
    not_learnt = [*found.holdout, *found.validation]
    assert not learnt & {after.split_paths[index] for index in not_learnt}
    assert {before.split_paths[index] for index in expected.holdout} <= {
        after.split_paths[index] for index in found.holdout
    }


def test_a_split_by_number_of_images_is_not_known_for_another_folder(photos: Path) -> None:
    dataset = load_dataset.for_training(RECIPE, DataOptions(folder=photos))
    changed = provenance(photos, validation=10, digest="0" * 64)
    found = split_of_changed_folder(dataset, changed)
    assert len(found.holdout)
    assert not len(found.validation)
    assert split_of_changed_folder(dataset, provenance(photos, by_path=False, digest="0" * 64)) is None


def test_an_early_version_held_nothing_out_beside_its_validation_images() -> None:
    """The images that its recipe holds out today were training images of the early version."""
    recipe = RECIPES["mnist-lenet5"]
    assert recipe.holdout
    labels = np.zeros(8000, np.int64)
    images = ArraySplit(np.zeros((8000, 1, 1, 1), np.uint8), labels)
    dataset = Dataset("mnist", "Digits", tuple("0123456789"), images, images)
    early = Provenance(
        source="run x/1", created_utc="2026-01-01T00:00:00Z", dataset="mnist", recipe="mnist-lenet5", seed=1
    )
    found = published_split(dataset, early)
    assert len(found.holdout) == 0
    assert len(found.validation) == recipe.validation
