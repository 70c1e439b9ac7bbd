"""Retrained networks are compared on images on which neither they nor the published version were trained."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from service.model_store.manifest import Provenance, SplitSpec
from training.data.datasets.base import ArraySplit, Dataset
from training.data.splits import split_indices
from training.errors import AccuracyRegression
from training.export.acceptance import Comparison, DecisionImages, select_images
from training.recipes.base import Recipe

RECIPE = Recipe(name="mine", dataset="made", architecture="lenet5", validation=300, holdout=250, seed=3)


def split(count: int) -> ArraySplit:
    return ArraySplit(np.zeros((count, 2, 2, 1), np.uint8), np.arange(count, dtype=np.int64) % 2)


DATASET = Dataset("made", "Made", ("a", "b"), split(2000), split(400))


def provenance(seed: int = RECIPE.seed, recipe: str = RECIPE.name, **division: object) -> Provenance:
    """Returns the provenance of a version that was trained on DATASET with this split."""
    spec = {"validation": 300, "holdout": 250, "seed": seed} | division
    return Provenance(
        source="run mine/1",
        created_utc="2026-01-01T00:00:00Z",
        dataset="made",
        recipe=recipe,
        seed=seed,
        division=SplitSpec(**spec),
    )


def run_of(published: Provenance) -> Recipe:
    division = published.division
    return replace(RECIPE, validation=division.validation, holdout=division.holdout, seed=division.seed)


def select(recipe: Recipe, published: Provenance) -> DecisionImages:
    """Selects the images, and checks that neither network was trained on them."""
    images = select_images(DATASET, recipe, published)
    if images.part != "test":
        for each in (recipe, run_of(published)):
            assert not set(images.indices) & set(split_indices(DATASET, each).train)
    return images


def test_the_held_out_images_decide() -> None:
    images = select(replace(RECIPE, seed=7, split_seed=3), provenance())
    assert images.part == "holdout"
    np.testing.assert_array_equal(images.indices, split_indices(DATASET, RECIPE).holdout)
    assert images.split is DATASET.train


def test_images_on_which_the_version_was_trained_do_not() -> None:
    """In versions of early releases, the images that the recipe holds out today were training images."""
    early = provenance(holdout=0)
    images = select(RECIPE, early)
    assert images.part == "validation"
    np.testing.assert_array_equal(images.indices, split_indices(DATASET, RECIPE).validation)


def test_validation_images_decide_only_if_they_favour_no_network() -> None:
    early = provenance(holdout=0)
    assert select(replace(RECIPE, keep="best"), early).part == "validation", "they selected both networks' epochs"
    assert select(replace(RECIPE, keep="best"), provenance(holdout=0, recipe="other")).part == "test"
    assert select(RECIPE, provenance(holdout=0, recipe="other")).part == "validation", "they selected nothing"


def test_a_holdout_that_the_version_used_for_validation_decides() -> None:
    images = select(replace(RECIPE, validation=0, holdout=280), provenance())
    assert images.part == "holdout"
    assert len(images.indices) == 280


def test_few_images_by_chance_decide_nothing() -> None:
    """With two seeds, only 27 of 2,000 images are in neither training set; the test set has 400."""
    images = select(RECIPE, provenance(seed=4))
    assert (images.part, len(images.indices)) == ("test", 400)
    assert images.split is DATASET.test


def test_few_images_that_are_all_that_is_held_out_decide() -> None:
    assert len(select(replace(RECIPE, holdout=20), provenance(holdout=20)).indices) == 20


def test_the_test_set_decides_if_the_training_images_are_unknown() -> None:
    unknown = Provenance(source="net.onnx", created_utc="2026-01-01T00:00:00Z")
    assert select_images(DATASET, RECIPE, unknown).part == "test"
    assert select_images(DATASET, RECIPE, provenance().model_copy(update={"dataset": "other"})).part == "test"


class ConstantPipeline:
    """Predicts class 0 for every image, which is correct for half of them."""

    def probabilities(self, images: Iterable[bytes]) -> np.ndarray:
        return np.tile(np.float32([0.75, 0.25]), (len(list(images)), 1))


@pytest.mark.parametrize(("published", "max_drop", "accepted"), [(0.5, 0, True), (0.51, 0.01, True), (0.51, 0, False)])
def test_a_drop_on_these_images_decides(published: float, max_drop: float, accepted: bool) -> None:
    comparison = Comparison(DecisionImages("holdout", split(100), np.arange(50)), "pets/2", published, max_drop)
    if accepted:
        decision = comparison.decide(ConstantPipeline())
        assert decision.held_out_accuracy == 0.5
    else:
        expected = r"0\.5000 on 50 held-out images is less than the 0\.5100 of pets/2\. Nothing is published"
        with pytest.raises(AccuracyRegression, match=expected):
            comparison.decide(ConstantPipeline())
    assert comparison.decision.as_json() == {
        "part": "holdout",
        "images": 50,
        "published": "pets/2",
        "published_accuracy": published,
        "accuracy": 0.5,
        "max_drop": max_drop,
    }


def test_accuracy_on_test_images_is_not_passed_off_as_held_out() -> None:
    comparison = Comparison(DecisionImages("test", split(100), np.arange(50)), "pets/2", 0.5, 0)
    assert comparison.decide(ConstantPipeline()).held_out_accuracy is None
