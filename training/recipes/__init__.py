"""Name -> recipe, one explicit table."""

from training.errors import TrainingError
from training.recipes import cifar10_resnet20, imagenette, mnist_lenet5, xo
from training.recipes.base import Recipe, nearest

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        mnist_lenet5.RECIPE,
        cifar10_resnet20.RECIPE,
        imagenette.RESNET18,
        imagenette.GOOGLENET,
        xo.RECIPE,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises TrainingError naming the nearest one."""
    if name not in RECIPES:
        raise TrainingError(f"There is no recipe called {name!r}: {nearest(name, RECIPES)}")
    return RECIPES[name]
