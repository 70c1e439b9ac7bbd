"""A grid yields every combination once, in a stable order."""

import pytest

from training.errors import TrainingError
from training.recipes import find_recipe, sweep_grid


def test_the_last_key_varies_fastest() -> None:
    assert sweep_grid.combinations(["lr=0.05,0.1", "width=1, 2 ,3"]) == [
        {"learning_rate": lr, "architecture.width": width} for lr in ("0.05", "0.1") for width in ("1", "2", "3")
    ]


def test_values_with_commas_have_semicolons_between_them() -> None:
    first, second = sweep_grid.recipes_for(find_recipe("xo"), sweep_grid.combinations(["milestones=3,5;4"]))
    assert (first.milestones, second.milestones) == ((3.0, 5.0), (4.0,))


def test_recipes_differ_in_what_the_grid_names_only() -> None:
    base = find_recipe("mnist-mlp-xent")
    recipes = sweep_grid.recipes_for(
        base, sweep_grid.combinations(["seed=1,2", "architecture.dropout=0.5", "loss=squared_error"])
    )
    assert [(recipe.seed, recipe.loss, recipe.architecture_options["dropout"]) for recipe in recipes] == [
        (1, "squared_error", 0.5),
        (2, "squared_error", 0.5),
    ]
    assert {recipe.learning_rate for recipe in recipes} == {base.learning_rate}


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        (["lr"], "--grid lr: write --grid KEY=VALUE,VALUE"),
        (["lr="], "write --grid KEY=VALUE,VALUE"),
        (["lr=1,2", "learning_rate=3"], "contains learning_rate twice"),
        (["lr=1,1"], "contains a value twice"),
    ],
)
def test_an_invalid_grid_is_rejected(grids: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        sweep_grid.combinations(grids)


def test_a_value_out_of_range_is_found_before_anything_is_trained() -> None:
    with pytest.raises(TrainingError, match="learning_rate is -1"):
        sweep_grid.recipes_for(find_recipe("xo"), sweep_grid.combinations(["lr=0.1,-1"]))
    with pytest.raises(TrainingError, match="should be a valid integer"):
        sweep_grid.recipes_for(find_recipe("xo"), sweep_grid.combinations(["epochs=2,many"]))
