"""Published recipes agree with their papers, pairs for comparison differ in one field, and all networks can be
built."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from training.architectures import ARCHITECTURES, build_without_weights
from training.architectures.googlenet import LOSS_WEIGHTS
from training.fit.lr_schedules import Schedule
from training.recipes import RECIPES
from training.recipes.base import APPLICATION_PREFIX, Recipe
from training.recipes.settings import from_json, to_json

GOLDEN = Path(__file__).parents[3] / "golden"


def golden(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def differing_fields(one: Recipe, other: Recipe) -> set[str]:
    pairs = zip(asdict(one).items(), asdict(other).values(), strict=True)
    return {name for (name, value), other_value in pairs if value != other_value} - {"name", "about"}


def test_alexnet_is_trained_as_in_its_golden_file() -> None:
    expected, recipe = golden("alexnet")["recipe"], RECIPES["imagenet-alexnet"]
    assert recipe.architecture_options["dropout"] == expected["dropout"]
    assert recipe.batch_size == expected["batch_size"]
    assert recipe.optimizer.upper() == expected["optimizer"]
    assert recipe.momentum == expected["momentum"]
    assert recipe.learning_rate == expected["learning_rate"]
    assert recipe.weight_decay == expected["weight_decay_l2"]
    assert expected["schedule"] == "divided by 10 when validation accuracy plateaus"
    assert (recipe.schedule, recipe.monitor, recipe.decay) == ("plateau", "accuracy", 0.1)


def test_vgg_and_resnet_divide_by_ten_on_a_plateau() -> None:
    for name, rate, decay in (("imagenet-vgg16", 0.01, 5e-4), ("imagenet-resnet50", 0.1, 1e-4)):
        recipe = RECIPES[name]
        assert (recipe.schedule, recipe.monitor, recipe.decay) == ("plateau", "accuracy", 0.1)
        assert (recipe.batch_size, recipe.momentum, recipe.learning_rate, recipe.weight_decay) == (
            256,
            0.9,
            rate,
            decay,
        )
    assert RECIPES["imagenet-resnet50"].epochs == 600_000 * 256 // 1_281_167 + 1


def test_googlenet_falls_by_four_percent_every_eight_epochs() -> None:
    recipe = RECIPES["imagenet-googlenet"]
    schedule = Schedule(recipe, steps_per_epoch=10)
    for epoch, falls in ((0, 0), (7, 0), (8, 1), (16, 2), (249, 31)):
        assert schedule.rate_at(epoch, 0) == pytest.approx(recipe.learning_rate * 0.96**falls, rel=1e-5)
    assert recipe.architecture_options == {"auxiliary": True, "dropout": 0.4}
    assert LOSS_WEIGHTS == {"logits": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3}
    assert (recipe.crop_area, recipe.crop_aspect) == ((0.08, 1.0), (3 / 4, 4 / 3))


def test_crops_of_224_are_shares_of_the_area_and_colors_shift_as_alexnets() -> None:
    assert RECIPES["imagenet-alexnet"].crop_area == (pytest.approx(0.574, abs=1e-3),) * 2
    assert {RECIPES[f"imagenet-{name}"].lighting for name in ("alexnet", "vgg16", "resnet50")} == {0.1}
    assert RECIPES["imagenet-vgg16"].crop_area == pytest.approx((0.574 / 4, 0.574), abs=1e-3)


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ("mnist-mlp-mse", "mnist-mlp-xent", {"loss"}),
        ("mnist-mlp-plain", "mnist-mlp-dropout", {"architecture_options"}),
    ],
)
def test_compared_recipes_differ_in_one_setting(one: str, other: str, difference: set[str]) -> None:
    assert differing_fields(RECIPES[one], RECIPES[other]) == difference


def test_the_first_network_is_the_one_of_the_lecture() -> None:
    expected, recipe = golden("mnist_mlp"), RECIPES["mnist-mlp-xent"]
    network = build_without_weights(recipe.architecture, **recipe.architecture_options)
    assert network.count_params() == expected["parameters"]
    assert "sigmoid hidden units, softmax output; mini-batch 100, 20 epochs, SGD 0.1" in expected["about"]
    assert network.get_layer("fc1").activation.__name__ == "sigmoid"
    assert (recipe.batch_size, recipe.epochs, recipe.learning_rate, recipe.momentum) == (100, 20, 0.1, 0.0)
    assert RECIPES["mnist-mlp-dropout"].architecture_options["dropout"] == 0.8


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_names_a_network_and_survives_json(recipe: Recipe) -> None:
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe
    if not recipe.architecture.startswith(APPLICATION_PREFIX):
        assert recipe.architecture in ARCHITECTURES
        build_without_weights(recipe.architecture, **recipe.architecture_options)
