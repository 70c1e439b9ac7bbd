"""Every network of the zoo has a recipe for the user's own images and can be built with it."""

import pytest

from training.architectures import ARCHITECTURES, build_without_weights
from training.data.load_dataset import input_spec_for
from training.recipes import RECIPES, find_recipe, is_recipe
from training.recipes.own_images import ARCHITECTURE_NAMES


def test_recipe_names_equal_the_architecture_names() -> None:
    assert set(ARCHITECTURE_NAMES) == ARCHITECTURES.keys() - {"xo"}  # xo has its own recipe
    assert not set(ARCHITECTURE_NAMES) & RECIPES.keys()
    assert is_recipe("resnet18")
    assert not is_recipe("resnet19")


@pytest.mark.parametrize("name", ["mlp", "lenet5", "convnetjs", "alexnet", "zfnet", "vgg-a", "googlenet", "resnet18"])
def test_a_recipe_fits_its_network(name: str) -> None:
    recipe = find_recipe(name)
    shape = input_spec_for(recipe).input.shape
    assert len(recipe.mean) == shape[2]
    assert max(shape) <= 128
    network = build_without_weights(name, input_shape=shape, classes=3)
    assert network.output_shape == (None, 3)
