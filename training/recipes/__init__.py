"""Name -> recipe, one explicit table."""

from training.errors import TrainingError
from training.recipes import (
    cifar10_convnetjs,
    cifar10_resnet20,
    fine_tune,
    imagenet,
    imagenette,
    mnist_lenet5,
    mnist_mlp,
    xo,
)
from training.recipes.base import Recipe, nearest

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *mnist_mlp.RECIPES,
        mnist_lenet5.RECIPE,
        cifar10_convnetjs.RECIPE,
        cifar10_resnet20.RECIPE,
        imagenette.RESNET18,
        imagenette.GOOGLENET,
        *imagenet.RECIPES,
        fine_tune.RECIPE,
        xo.RECIPE,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises TrainingError naming the nearest one."""
    if name not in RECIPES:
        raise TrainingError(f"There is no recipe called {name!r}: {nearest(name, RECIPES)}")
    return RECIPES[name]
