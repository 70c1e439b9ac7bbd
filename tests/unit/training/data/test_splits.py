"""Training, validation and test images do not overlap, and depend only on the recipe."""

from dataclasses import replace

import numpy as np
import pytest

from training.data.datasets.base import ArraySplit, Dataset
from training.data.splits import split_indices
from training.errors import TrainingError
from training.recipes import RECIPES
from training.recipes.base import Recipe

CLASSES = 3


def split(count: int) -> ArraySplit:
    return ArraySplit(np.zeros((count, 4, 4, 1), np.uint8), np.arange(count, dtype=np.int64) % CLASSES)


def recipe(**fields: object) -> Recipe:
    return Recipe(name="any", dataset="any", architecture="lenet5", **{"batch_size": 8, "validation": 10} | fields)


def test_portions_split_the_training_set_without_overlap() -> None:
    dataset = Dataset("any", "Any", tuple("abc"), split(100), split(30))
    splits = split_indices(dataset, recipe())
    assert len(splits.validation) == 10
    assert sorted([*splits.train, *splits.validation]) == list(range(100))
    np.testing.assert_array_equal(splits.test, np.arange(30))
    again, other = split_indices(dataset, recipe()), split_indices(dataset, recipe(seed=2))
    np.testing.assert_array_equal(splits.validation, again.validation)
    assert set(splits.validation) != set(other.validation)


@pytest.mark.parametrize(("share", "count"), [(0.25, 25), (0.001, 1), (0, 0), (1, 1)])
def test_validation_may_be_a_share(share: float, count: int) -> None:
    dataset = Dataset("any", "Any", tuple("abc"), split(100), split(30))
    assert len(split_indices(dataset, recipe(validation=share)).validation) == count


def test_images_left_out_do_not_change_the_split_of_others() -> None:
    dataset = Dataset("any", "Any", tuple("abc"), split(100), split(30))
    splits = split_indices(dataset, recipe())
    unreadable = (int(splits.train[5]), int(splits.validation[0]))
    rest = split_indices(replace(dataset, unreadable_train=unreadable, unreadable_test=(2,)), recipe())
    np.testing.assert_array_equal(rest.train, np.delete(splits.train, 5))
    np.testing.assert_array_equal(rest.validation, splits.validation[1:])
    assert 2 not in rest.test


def test_a_limited_test_set_is_spread_over_the_whole() -> None:
    dataset = Dataset("any", "Any", tuple("abc"), split(100), split(30))
    assert split_indices(dataset, recipe(limit=3)).test.tolist() == [0, 14, 29]


def test_a_limit_holds_for_every_split() -> None:
    dataset = Dataset("any", "Any", tuple("abc"), split(100), split(30))
    splits = split_indices(dataset, recipe(limit=5))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (5, 5, 5)
    assert not set(splits.train) & set(splits.validation)


def test_validation_and_holdout_must_leave_something_to_train_on() -> None:
    dataset = Dataset("small", "Small", tuple("abc"), split(10), split(30))
    for parts in ({"validation": 10}, {"validation": 5, "holdout": 0.5}):
        with pytest.raises(TrainingError, match=r"validation=\d+ and holdout=\d+ leave none of the 10 training images"):
            split_indices(dataset, recipe(**parts))
    assert len(split_indices(dataset, recipe(validation=5, holdout=4)).train) == 1


def test_parts_are_disjoint_and_a_holdout_keeps_the_validation_images() -> None:
    dataset = Dataset("any", "Any", tuple("abc"), split(100), split(30))
    before = split_indices(dataset, recipe(validation=20))
    after = split_indices(dataset, recipe(validation=20, holdout=0.25))
    assert after.validation.tolist() == before.validation.tolist()
    assert len(after.holdout) == 25
    assert sorted([*after.train, *after.validation, *after.holdout]) == list(range(100))


def test_the_split_seed_alone_divides_the_images() -> None:
    dataset = Dataset("any", "Any", tuple("abc"), split(100), split(30))
    settings = {"validation": 20, "holdout": 10}
    first = split_indices(dataset, recipe(seed=1, **settings))
    retrained = split_indices(dataset, recipe(seed=2, split_seed=1, **settings))
    for part in ("train", "validation", "holdout", "test"):
        np.testing.assert_array_equal(getattr(first, part), getattr(retrained, part))
    other = split_indices(dataset, recipe(seed=1, split_seed=2, **settings))
    assert set(other.holdout) != set(first.holdout)


def folder_dataset(*paths: str) -> Dataset:
    """Returns a data set that is split by paths."""
    return Dataset("folder", "Mine", tuple("abc"), split(len(paths)), split(30), split_paths=paths)


def paths_of(dataset: Dataset, indices: np.ndarray) -> set[str]:
    return {dataset.split_paths[index] for index in indices}


def test_a_folders_shares_are_met_on_average_without_overlap() -> None:
    dataset = folder_dataset(*(f"{number:04}.jpg" for number in range(2000)))
    splits = split_indices(dataset, recipe(validation=0.1, holdout=0.2))
    assert len(splits.validation) == pytest.approx(200, abs=4 * 13.4)  # four standard deviations (binomial)
    assert len(splits.holdout) == pytest.approx(400, abs=4 * 17.9)
    assert sorted([*splits.train, *splits.validation, *splits.holdout]) == list(range(2000))
    counted = split_indices(dataset, recipe(validation=100, holdout=300))
    assert (len(counted.validation), len(counted.holdout), len(counted.train)) == (100, 300, 1600)
    limited = split_indices(dataset, recipe(validation=0.1, holdout=0.2, limit=50))
    assert (len(limited.validation), len(limited.holdout), len(limited.train)) == (50, 50, 50)
    for part in ("train", "validation", "holdout"):
        assert set(getattr(limited, part)) <= set(getattr(splits, part))


@pytest.mark.parametrize("settings", [{"validation": 0.1, "holdout": 0.2}, {"validation": 30, "holdout": 0.2}])
def test_added_or_removed_images_do_not_change_the_split_of_others(settings: dict[str, float]) -> None:
    """With a split by position, one added image would move all other images into other sets."""
    paths = [f"{number:04}.jpg" for number in range(1000)]
    before = folder_dataset(*paths)
    after = folder_dataset(*(f"{number:04}-new.jpg" for number in range(300)), *paths[100:])
    old, new = (split_indices(dataset, recipe(**settings)) for dataset in (before, after))
    assert not paths_of(before, old.train) & paths_of(after, new.holdout)
    kept = set(paths[100:])
    for part in ("train", "validation", "holdout") if settings["validation"] < 1 else ("holdout",):
        assert paths_of(before, getattr(old, part)) & kept == paths_of(after, getattr(new, part)) & kept


def test_a_folder_of_few_images_has_one_at_least_in_each_part() -> None:
    splits = split_indices(folder_dataset("a", "b", "c"), recipe(validation=0.01, holdout=0.01))
    assert [len(part) for part in (splits.train, splits.validation, splits.holdout)] == [1, 1, 1]
    with pytest.raises(TrainingError, match="leave none of the 2 training images of folder"):
        split_indices(folder_dataset("a", "b"), recipe(validation=0.01, holdout=0.01))


@pytest.mark.parametrize("name", ["mnist-lenet5", "cifar10-resnet20", "cifar10-resnet9", "imagenette-resnet18"])
def test_shipped_recipes_hold_out_enough_images_to_accept_a_graph(name: str) -> None:
    assert RECIPES[name].holdout >= 1500
