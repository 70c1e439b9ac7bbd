"""Settings of recipes are parsed into typed fields or rejected with advice, and survive JSON."""

import dataclasses
import json

import pytest

from training.cli.run import configure_recipe
from training.errors import TrainingError
from training.recipes import RECIPES, find_recipe
from training.recipes.base import Recipe
from training.recipes.settings import from_json, to_json, with_settings

BASE = Recipe(name="any", dataset="mnist", architecture="lenet5")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "3", 3),
        ("learning_rate", "1e-2", 0.01),
        ("flip", "true", True),
        ("flip", "No", False),
        ("loss", "squared_error", "squared_error"),
        ("milestones", "30, 60", (30.0, 60.0)),
        ("limit", "500", 500),
        ("limit", "none", None),
        ("validation", "500", 500),
        ("validation", "0.1", 0.1),
        ("validation", "1.0", 1.0),
        ("crop_area", "0.3,1", (0.3, 1.0)),
        ("progressive_side_px", "96, 128", (96, 128)),
        ("progressive_side_px", "", ()),
        ("dataset", "cifar10", "cifar10"),
    ],
)
def test_a_typed_value_has_the_type_of_its_field(key: str, text: str, value: object) -> None:
    changed = getattr(with_settings(BASE, {key: text}), key)
    assert changed == value
    assert type(changed) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), ("2", 2), ("relu", "relu"), ("true", True), ("300,100", (300, 100)), ("300,", (300,))],
)
def test_architecture_options_are_guessed(text: str, value: object) -> None:
    recipe = with_settings(BASE, {"architecture.hidden": text})
    assert recipe.architecture_options == {"hidden": value}


def test_settings_leave_the_recipe_itself_alone() -> None:
    with_settings(BASE, {"epochs": "3", "architecture.width": "2"})
    assert BASE.epochs == Recipe(name="any", dataset="mnist", architecture="lenet5").epochs
    assert BASE.architecture_options == {}


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("epoch", "3", "no field 'epoch': did you mean 'epochs'?"),
        ("name", "x", "no field 'name'"),
        ("zzz", "3", "the choices are architecture, augment_on_device, balanced_sampling"),
        ("epochs", "many", "epochs=many: Input should be a valid integer"),
        ("epochs", "2.5", "should be a valid integer"),
        ("learning_rate", "fast", "should be a valid number"),
        ("flip", "maybe", "should be a valid boolean"),
        ("loss", "mse", "should be 'cross_entropy' or 'squared_error'"),
        ("mean", "a,b", "mean=a,b: Input should be a valid number"),
        ("progressive_side_px", "96.5", "should be a valid integer"),
        ("limit", "all", "limit=all: Input should be a valid integer"),
        ("validation", "few", "should be a valid number"),
    ],
)
def test_an_invalid_setting_is_rejected(key: str, text: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message.replace("?", r"\?")):
        with_settings(BASE, {key: text})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": "0"}, "epochs is 0; it must be at least 1"),
        ({"batch_size": "0"}, "batch_size"),
        ({"limit": "0"}, "limit"),
        ({"shift_px": "-1"}, "shift_px"),
        ({"learning_rate": "0"}, "must be positive"),
        ({"learning_rate": "nan"}, "must be positive"),
        ({"momentum": "1"}, r"must be in \[0, 1\)"),
        ({"label_smoothing": "1"}, r"must be in \[0, 1\)"),
        ({"mean": "0.5,0.5", "std": "1"}, "same number of values"),
        ({"std": "0"}, "std must be positive"),
        ({"keep": "best", "validation": "0"}, "needs validation images"),
        ({"schedule": "step"}, "needs milestones"),
        ({"crop_area": "0.5"}, "crop_area needs two positive numbers, the smaller first"),
        ({"crop_area": "0.5,0.2"}, "the smaller first"),
        ({"crop_area": "0.5,1.5"}, "at most 1"),
        ({"crop_aspect": "0,1"}, "crop_aspect needs two positive numbers"),
        ({"brightness": "1.5"}, r"brightness is 1.5; it must be in \[0, 1\]"),
        ({"lighting": "-0.1"}, "lighting"),
        ({"mixup": "-1"}, "mixup is -1.0; it must be at least 0"),
        ({"mixup": "0.2", "cutmix": "1"}, "set only one of them"),
        ({"cutout_px": "-1"}, "cutout_px"),
        ({"clip_norm": "-1"}, "clip_norm is -1.0; it must be at least 0"),
        ({"random_erasing": "1.1"}, r"random_erasing is 1.1; it must be in \[0, 1\]"),
        ({"randaugment": "-1"}, "randaugment is -1"),
        ({"randaugment_magnitude": "31"}, "randaugment_magnitude is 31; it must be from 0 to 30"),
        ({"class_weight": "auto", "balanced_sampling": "yes"}, "both correct for small classes: set only one"),
        ({"random_erasing": "0.5", "augment_on_device": "true"}, "random_erasing runs on the host only"),
        ({"test_share": "1"}, "test_share is 1.0; it must be between 0 and 1"),
        ({"side_px": "64", "shorter_px": "60"}, "shorter_px is 60; it must be at least side_px=64"),
        ({"side_px": "0"}, "side_px is 0"),
        ({"progressive_side_px": "0,32"}, "no side may be larger or below 1"),
        ({"progressive_side_px": "64,32"}, "no side may be larger or below 1"),
        ({"progressive_side_px": "96,128", "side_px": "160"}, "progressive_side_px ends with 128, but side_px is 160"),
        ({"progressive_side_px": "24,32", "augment_on_device": "true"}, "progressive_side_px runs on the host only"),
    ],
)
def test_values_out_of_range_are_rejected(settings: dict[str, str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        with_settings(BASE, settings)


@pytest.mark.parametrize(
    ("sides", "epochs", "by_epoch"),
    [
        ("96,96,128", 6, [96, 96, 96, 96, 128, 128]),
        ("96,96,128", 8, [96] * 5 + [128] * 3),
        ("64,96,128", 3, [64, 96, 128]),
        ("96,96,128", 2, [96, 128]),
        ("96,96,128", 1, [128]),
        ("128", 2, [128, 128]),
        ("", 2, [None, None]),
    ],
)
def test_the_epochs_are_divided_among_the_sides_and_end_with_the_last(
    sides: str, epochs: int, by_epoch: list[int | None]
) -> None:
    recipe = with_settings(BASE, {"progressive_side_px": sides, "epochs": str(epochs)})
    assert [recipe.side_px_at(epoch) for epoch in range(epochs)] == by_epoch


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name: str) -> None:
    recipe = with_settings(RECIPES[name], {"architecture.hidden": "3,4"})
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_description(name: str) -> None:
    assert RECIPES[name].name == name
    assert RECIPES[name].about


def test_a_recipe_of_another_version_is_rejected() -> None:
    with pytest.raises(TrainingError, match="unknown to this version: cutout"):
        from_json({**to_json(BASE), "cutout": 8})
    with pytest.raises(TrainingError, match="incomplete"):
        from_json({"name": "x"})


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert find_recipe("mnist-lenet5") is RECIPES["mnist-lenet5"]
    with pytest.raises(TrainingError, match="did you mean 'mnist-lenet5'"):
        find_recipe("mnist-lenet")


@pytest.mark.parametrize(
    ("settings", "warm_up_epochs"),
    [
        ({"epochs": "3"}, 0.9),
        ({"epochs": "20"}, 3),
        ({"seed": "2"}, 3),
        ({"epochs": "3", "warm_up_epochs": "2"}, 2),
    ],
    ids=["fewer", "more", "unchanged", "set by hand"],
)
def test_fewer_epochs_shorten_the_warm_up(settings: dict[str, str], warm_up_epochs: float) -> None:
    recipe = dataclasses.replace(find_recipe("mnist-lenet5"), epochs=10, warm_up_epochs=3)
    assert with_settings(recipe, settings).warm_up_epochs == warm_up_epochs


@pytest.mark.parametrize("changes", [{"epochs": "3"}, {"epochs": "3", "warm_up_epochs": "1"}, {}], ids=str)
def test_a_warm_up_that_is_shortened_is_reported(changes: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    before = find_recipe("mnist-lenet5")
    after = configure_recipe("mnist-lenet5", None, changes)
    expected = ""
    if changes == {"epochs": "3"}:
        expected = (
            f"Warm-up: {after.warm_up_epochs:g} epochs instead of {before.warm_up_epochs:g}, because the run has 3 "
            f"epochs instead of {before.epochs}. --set warm_up_epochs=N changes the warm-up.\n"
        )
    assert capsys.readouterr().out == expected
