"""Recipes: all settings of a training run as data, in `RECIPES` by name.

Recipes are independent of Keras, files and data sets: code that builds, loads or trains does not belong here.
"""

from training.errors import TrainingError
from training.recipes import (
    cifar10_convnetjs,
    cifar10_fast,
    cifar10_resnet9,
    cifar10_resnet20,
    fine_tune,
    imagenet,
    imagenette,
    mnist_lenet5,
    mnist_mlp,
    own_images,
    xo,
)
from training.recipes.base import Recipe, suggestion

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *mnist_mlp.RECIPES,
        mnist_lenet5.RECIPE,
        cifar10_convnetjs.RECIPE,
        cifar10_resnet20.RECIPE,
        cifar10_resnet9.RECIPE,
        cifar10_fast.RECIPE,
        imagenette.RESNET18,
        imagenette.GOOGLENET,
        *imagenet.RECIPES,
        fine_tune.RECIPE,
        xo.RECIPE,
    )
}


def find_recipe(name: str) -> Recipe:
    """Returns the recipe `name`, or the one for a network of that name. Raises TrainingError with a suggestion."""
    if name in RECIPES:
        return RECIPES[name]
    if name in own_images.ARCHITECTURE_NAMES:
        return own_images.recipe_for(name)
    if "/" in name:
        raise TrainingError(f"There is no folder {name}.")
    raise TrainingError(
        f"There is no recipe called {name!r}: {suggestion(name, [*RECIPES, *own_images.ARCHITECTURE_NAMES])}"
    )


def is_recipe(name: str) -> bool:
    """Returns whether `find_recipe` finds a recipe of this name."""
    return name in RECIPES or name in own_images.ARCHITECTURE_NAMES
