"""Expands a recipe with a grid of settings: every combination once, in a stable order."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields

from training.errors import TrainingError
from training.recipes.base import ARCHITECTURE_PREFIX, Recipe
from training.recipes.settings import with_settings

ALIASES = {"lr": "learning_rate"}
Settings = Mapping[str, str]


def combinations(grids: Sequence[str]) -> list[Settings]:
    """Returns all combinations of grids `key=value,value,...`; the last grid varies fastest.

    Values that contain commas are separated by semicolons. The keys are the keys of `--set`, `lr`, and the network's
    options without the prefix `architecture.`. Raises TrainingError for an invalid grid, and for a key or a value that
    is given twice.
    """
    axes: dict[str, list[str]] = {}
    for grid in grids:
        key, equals, text = grid.partition("=")
        values = [value.strip() for value in text.split(";" if ";" in text else ",") if value.strip()]
        if not equals or not values:
            raise TrainingError(f"--grid {grid}: write --grid KEY=VALUE,VALUE.")
        name = _full_name(key.strip())
        if name in axes:
            raise TrainingError(f"--grid contains {name} twice: write all its values in one --grid.")
        if len(set(values)) < len(values):
            raise TrainingError(f"--grid {grid} contains a value twice.")
        axes[name] = values
    return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*axes.values())]


def recipes_for(recipe: Recipe, settings: Sequence[Settings]) -> list[Recipe]:
    """Returns one recipe per settings. Raises TrainingError for values that are out of range."""
    return [with_settings(recipe, each) for each in settings]


def format_settings(settings: Settings) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _full_name(key: str) -> str:
    """Returns the key in the form of `--set`. A key that is not a field is an option of the network."""
    names = {field.name for field in fields(Recipe)}
    if key in ALIASES or key in names or key.startswith(ARCHITECTURE_PREFIX):
        return ALIASES.get(key, key)
    return ARCHITECTURE_PREFIX + key
