"""Converts recipes from and to text: command-line settings, `recipe.json`, and values in cards and reports."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from training.errors import TrainingError
from training.recipes.base import APPLICATION_PREFIX, ARCHITECTURE_PREFIX, OptionValue, Recipe, suggestion

_UNSETTABLE_FIELDS = ("name", "about", "architecture_options")


def with_settings(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """Returns the recipe with settings from the command line, `{"epochs": "3", "architecture.activation": "relu"}`.

    Fewer epochs shorten the warm-up in proportion, unless the settings contain it as well. A run that never leaves the
    warm-up learns little. Raises TrainingError for an unknown key (the message suggests the nearest key), and for a
    value that is not of the field's type.
    """
    changes: dict[str, Any] = {}
    options = dict(recipe.architecture_options)
    for key, text in settings.items():
        if key.startswith(ARCHITECTURE_PREFIX):
            options[key.removeprefix(ARCHITECTURE_PREFIX)] = _parse_option(text)
        else:
            changes[key] = _parse_value(key, text, _field_type(key))
    epochs_ratio = changes.get("epochs", recipe.epochs) / recipe.epochs
    if epochs_ratio < 1:
        changes.setdefault("warm_up_epochs", round(recipe.warm_up_epochs * epochs_ratio, 3))
    return dataclasses.replace(recipe, architecture_options=options, **changes)


def with_application(application: str, recipe: Recipe) -> Recipe:
    """Returns the recipe with a Keras Applications network, "keras:NAME", and without normalization of its own.

    Raises TrainingError for another name.
    """
    if not application.startswith(APPLICATION_PREFIX):
        raise TrainingError(f"--from {application}: write --from {APPLICATION_PREFIX}NAME, for example keras:ResNet50.")
    return dataclasses.replace(recipe, architecture=application, architecture_options={}, mean=(0.0,), std=(1.0,))


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as plain values, for `recipe.json`."""
    return dataclasses.asdict(recipe)


def from_json(values: Mapping[str, Any]) -> Recipe:
    """Returns the recipe that `to_json` wrote. Raises TrainingError for fields that this version does not have."""
    field_names = {f.name for f in dataclasses.fields(Recipe)}
    if unknown := set(values) - field_names:
        raise TrainingError(f"The recipe has fields unknown to this version: {', '.join(sorted(unknown))}.")
    options = {key: _list_to_tuple(value) for key, value in values.get("architecture_options", {}).items()}
    fields = {key: _list_to_tuple(value) for key, value in values.items()}
    try:
        return Recipe(**{**fields, "architecture_options": options})
    except TypeError as error:
        raise TrainingError(f"The recipe is incomplete: {error}.") from error


def format_value(value: object) -> str:
    """Formats a value in the form that `--set` accepts."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={format_value(item)}" for key, item in value.items()) or "none"
    return "none" if value is None else str(value)


def _field_type(key: str) -> Any:
    types = {name: kind for name, kind in typing.get_type_hints(Recipe).items() if name not in _UNSETTABLE_FIELDS}
    if key not in types:
        raise TrainingError(f"A recipe has no field {key!r}: {suggestion(key, types)}")
    return types[key]


def _parse_value(key: str, text: str, kind: Any) -> Any:
    value: Any = text
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        value = [part for part in text.split(",") if part.strip()]
    elif type(None) in choices and text.lower() == "none":
        value = None
    elif choices == (int, float):  # 1.0 is a fraction, 1 is a count. Pydantic reads both as int.
        kind = int if text.strip().isdigit() else float
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise TrainingError(f"{key}={text}: {error.errors()[0]['msg']}.") from None


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _parse_option(text: str) -> OptionValue:
    """Parses an option of a builder. Its type is inferred, because only the builder defines it. "100,50" and "100,"
    become tuples."""
    if "," in text:
        return tuple(_parse_scalar(part) for part in text.split(",") if part.strip())
    return _parse_scalar(text)


def _parse_scalar(text: str) -> int | float | bool | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
