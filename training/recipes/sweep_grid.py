"""The list of recipes that a grid of settings makes of one: every combination once, in an order that stays."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields

from training.errors import TrainingError
from training.recipes.base import ARCHITECTURE_PREFIX, Recipe
from training.recipes.settings import with_settings

ALIASES = {"lr": "learning_rate"}
Settings = Mapping[str, str]


def combinations(grids: Sequence[str]) -> list[Settings]:
    """Of `key=value,value,...`, or of `key=value;value` where values have commas themselves; the last varies fastest.

    Keys are those of `--set`, `lr`, and the network's own options without `architecture.` before them. Raises
    TrainingError for what is none, and for a key or a value given twice.
    """
    axes: dict[str, list[str]] = {}
    for grid in grids:
        key, equals, text = grid.partition("=")
        values = [value.strip() for value in text.split(";" if ";" in text else ",") if value.strip()]
        if not equals or not values:
            raise TrainingError(f"--grid {grid}: write --grid KEY=VALUE,VALUE.")
        name = _full_name(key.strip())
        if name in axes:
            raise TrainingError(f"--grid names {name} twice: write all of its values in one.")
        if len(set(values)) < len(values):
            raise TrainingError(f"--grid {grid} has a value twice.")
        axes[name] = values
    return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*axes.values())]


def recipes_for(recipe: Recipe, settings: Sequence[Settings]) -> list[Recipe]:
    """The recipe once with each of the settings. Raises TrainingError for values that are out of range."""
    return [with_settings(recipe, each) for each in settings]


def format_settings(settings: Settings) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _full_name(key: str) -> str:
    """The key as `--set` has it; one of the network's own options is known by not looking like a field."""
    names = {field.name for field in fields(Recipe)}
    if key in ALIASES or key in names or key.startswith(ARCHITECTURE_PREFIX):
        return ALIASES.get(key, key)
    return ARCHITECTURE_PREFIX + key
