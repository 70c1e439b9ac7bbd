"""Images of a recipe or run are loaded in the shape of its network. Damaged images are listed, or skipped and
recorded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.images import write_image_folder
from training.data import load_dataset
from training.data.load_dataset import DataOptions
from training.data.splits import split_indices
from training.errors import TrainingError
from training.recipes.base import Recipe
from training.runs.run_folder import start_run

RECIPE = Recipe(name="mine", dataset="folder", architecture="cifar-resnet20", validation=0.25, seed=3)


def damage(folder: Path) -> None:
    (folder / "red" / "000.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "blue" / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("settings", "size", "shorter"),
    [
        ({}, (32, 32, 3), 37),
        ({"side_px": 64}, (64, 64, 3), 73),
        ({"side_px": 64, "shorter_px": 64}, (64, 64, 3), 64),
        ({"side_px": 64, "resize": "squash"}, (64, 64, 3), None),
        ({"architecture": "resnet50"}, (224, 224, 3), 256),
        ({"architecture": "lenet5"}, (28, 28, 1), 32),
        ({"architecture": "keras:ResNet50"}, (224, 224, 3), 256),
    ],
)
def test_the_input_size_follows_from_recipe_and_network(settings: dict, size: tuple, shorter: int | None) -> None:
    input_spec = load_dataset.input_spec_for(Recipe(**{**vars(RECIPE), **settings}))
    assert (input_spec.input.shape, input_spec.preprocessing.shorter) == (size, shorter)


def test_damaged_images_are_all_listed(tmp_path: Path) -> None:
    damage(write_image_folder(tmp_path, "red", "blue", count=20))
    with pytest.raises(
        TrainingError, match=r"cannot be read: 2\. Repair or remove them, or add --skip-unreadable"
    ) as caught:
        load_dataset.for_training(RECIPE, DataOptions(folder=tmp_path))
    lines = str(caught.value).splitlines()[1:]
    assert sorted(line.split(":")[0].strip() for line in lines) == ["blue/notes.txt", "red/000.jpg"]


def test_skipped_images_are_recorded_and_do_not_change_the_split_of_others(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=20)
    whole = load_dataset.for_training(RECIPE, DataOptions(folder=tmp_path))
    before = split_indices(whole, RECIPE)
    (tmp_path / "red" / "000.jpg").write_bytes(b"\xff\xd8\xff")
    dataset = load_dataset.for_training(RECIPE, DataOptions(folder=tmp_path, skip_unreadable=True))
    assert dataset.origin["skipped"] == ["red/000.jpg: The bytes are not an image, or its header is damaged."]
    after = split_indices(dataset, RECIPE)
    removed = [len(set(getattr(before, part)) - set(getattr(after, part))) for part in ("train", "validation", "test")]
    assert sum(removed) == 1
    for part in ("train", "validation", "test"):
        remaining = [index for index in getattr(before, part) if index in getattr(after, part)]
        assert getattr(after, part).tolist() == remaining


def test_without_any_readable_image_nothing_is_trained(tmp_path: Path) -> None:
    for path in write_image_folder(tmp_path, "red", "blue", count=4).rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(TrainingError, match="No image is left to train on: 8 cannot be read, such as"):
        load_dataset.for_training(RECIPE, DataOptions(folder=tmp_path, skip_unreadable=True))


def test_one_image_a_class_is_too_few_for_a_test(tmp_path: Path) -> None:
    write_image_folder(tmp_path, "red", "blue", count=1)
    with pytest.raises(TrainingError, match="No image is left for the test: a class needs at least two images, one"):
        load_dataset.for_training(RECIPE, DataOptions(folder=tmp_path))


def test_a_limited_run_checks_only_the_images_that_it_uses(tmp_path: Path) -> None:
    recipe = Recipe(**{**vars(RECIPE), "limit": 2})
    write_image_folder(tmp_path, "red", "blue", count=20)
    dataset = load_dataset.for_training(recipe, DataOptions(folder=tmp_path))
    used = split_indices(dataset, recipe).test[0]
    unused = next(index for index in range(len(dataset.test)) if index not in split_indices(dataset, recipe).test)
    files = dataset.origin["test_files"]
    (tmp_path / files[unused]).write_bytes(b"")
    assert len(load_dataset.for_training(recipe, DataOptions(folder=tmp_path)).test) == len(files)
    (tmp_path / files[used]).write_bytes(b"")
    with pytest.raises(TrainingError, match=f"cannot be read: 1.*\n  {files[used]}"):
        load_dataset.for_training(recipe, DataOptions(folder=tmp_path))


def start_recorded_run(folder: Path, runs_dir: Path, skip_unreadable: bool = False):
    dataset = load_dataset.for_training(RECIPE, DataOptions(folder=folder, skip_unreadable=skip_unreadable))
    info = {"dataset": {"data_note": "from my phone", "origin": dict(dataset.origin)}}
    return dataset, start_run(runs_dir, RECIPE, info)


def test_a_run_continues_with_the_same_images_only(tmp_path: Path) -> None:
    damage(write_image_folder(tmp_path / "photos", "red", "blue", count=20))
    dataset, run = start_recorded_run(tmp_path / "photos", tmp_path / "runs", skip_unreadable=True)
    again = load_dataset.for_resuming(run, DataOptions())
    assert (again.origin, again.note) == (dataset.origin, "from my phone")
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(TrainingError, match="photos is not a folder"):
        load_dataset.for_resuming(run, DataOptions())
    assert len(load_dataset.for_resuming(run, DataOptions(folder=tmp_path / "moved")).train) == len(dataset.train)
    (tmp_path / "moved" / "red" / "001.png").unlink()
    with pytest.raises(TrainingError, match=r"moved have changed since .* start a new run"):
        load_dataset.for_resuming(run, DataOptions(folder=tmp_path / "moved"))


def test_a_run_continues_with_the_test_images_that_it_began_with(tmp_path: Path) -> None:
    """This holds even if an earlier release drew them in another way."""
    photos = write_image_folder(tmp_path / "photos", "red", "blue", count=20)
    first_dataset = load_dataset.for_training(RECIPE, DataOptions(folder=photos))
    test_files = ["blue/000.jpg", "blue/001.png", "red/018.jpg"]
    assert set(first_dataset.origin["test_files"]) != set(test_files)
    origin = {**first_dataset.origin, "test_files": test_files}
    run = start_run(tmp_path / "runs", RECIPE, {"dataset": {"data_note": None, "origin": origin}})
    again = load_dataset.for_resuming(run, DataOptions())
    assert again.origin["test_files"] == test_files
    assert len(again.train) == 37


def test_a_run_is_measured_on_its_own_test_images(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "photos", "red", "blue", count=20)
    dataset, run = start_recorded_run(tmp_path / "photos", tmp_path / "runs")
    write_image_folder(tmp_path / "more", "green", count=1)
    (tmp_path / "more" / "green" / "000.jpg").rename(tmp_path / "photos" / "blue" / "aaa.jpg")
    again = load_dataset.for_evaluation(run, DataOptions())
    indices = np.arange(len(dataset.test))
    np.testing.assert_array_equal(again.test.read_images(indices), dataset.test.read_images(indices))
    broken = tmp_path / "photos" / dataset.origin["test_files"][0]
    broken.write_bytes(b"")
    with pytest.raises(TrainingError, match="cannot be read: 1"):
        load_dataset.for_evaluation(run, DataOptions())
    assert len(load_dataset.for_evaluation(run, DataOptions(skip_unreadable=True)).test) == len(indices) - 1


def test_another_seed_does_not_change_the_split_of_the_same_split_seed(tmp_path: Path) -> None:
    """A new seed used to draw another test set, mostly from training images of the published version."""
    write_image_folder(tmp_path, "red", "blue", count=40)
    other_seed = replace(RECIPE, seed=9, split_seed=RECIPE.seed)
    first, again = (load_dataset.for_training(recipe, DataOptions(folder=tmp_path)) for recipe in (RECIPE, other_seed))
    assert again.origin == first.origin
    for part in ("train", "validation", "holdout", "test"):
        indices = (
            getattr(split_indices(dataset, each), part) for dataset, each in ((first, RECIPE), (again, other_seed))
        )
        np.testing.assert_array_equal(*indices)


def test_a_run_of_an_early_release_keeps_its_division(tmp_path: Path) -> None:
    """Such a run drew validation images by position, and must continue to do so."""
    write_image_folder(tmp_path / "photos", "red", "blue", count=20)
    dataset, run = start_recorded_run(tmp_path / "photos", tmp_path / "runs")
    assert dataset.origin["split_by_path"]
    assert len(load_dataset.for_resuming(run, DataOptions()).split_paths) == len(dataset.train)
    origin = {key: value for key, value in dataset.origin.items() if key != "split_by_path"}
    early = start_run(tmp_path / "runs", RECIPE, {"dataset": {"data_note": None, "origin": origin}})
    for again in (load_dataset.for_resuming(early, DataOptions()), load_dataset.for_evaluation(early, DataOptions())):
        assert not again.split_paths
        assert again.origin["test_files"] == dataset.origin["test_files"]


def test_nothing_to_measure_on_is_reported() -> None:
    input_spec = load_dataset.input_spec_for(RECIPE)
    with pytest.raises(TrainingError, match="--dataset, or a folder of images with --data"):
        load_dataset.for_network(None, DataOptions(), input_spec.input, input_spec.preprocessing, ("a", "b"))
    with pytest.raises(TrainingError, match="needs a folder of images: specify it with --data"):
        load_dataset.for_network("folder", DataOptions(), input_spec.input, input_spec.preprocessing, ("a", "b"))
