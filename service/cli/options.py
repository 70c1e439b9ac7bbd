"""Options that the commands share: settings as flags, and the completion of model names.

A flag's help is the setting's own description.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from service.model_store.object_store import is_url
from service.model_store.repository import Repository
from service.settings import Settings


def setting_flags(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds a flag for each named setting (all without names); the command gets the built Settings as first argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        chosen = names or tuple(Settings.model_fields)

        @functools.wraps(command)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in chosen}
            return command(_settings(given), *args, **kwargs)

        decorated: Callable[..., Any] = with_settings
        for name in reversed(chosen):
            decorated = _flag(name, Settings.model_fields[name])(decorated)
        return decorated

    return decorate


def _flag(name: str, field: FieldInfo) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    about = f"{field.description} Default: {field.default}. Variable: CONVOY_{name.upper()}."
    return click.option(f"--{name.replace('_', '-')}", name, default=None, help=about, metavar="VALUE")


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        flag = f"--{name.replace('_', '-')} or CONVOY_{name.upper()}"
        raise click.UsageError(f"{flag} is {first['input']!r}: {first['msg']}.") from None


def model_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Returns the models of --models or CONVOY_MODELS whose names begin with `incomplete`.

    Completion never prints an error and never connects to a bucket.
    """
    try:
        where = context.params.get("models") or Settings().models
        names = [] if is_url(where) else Repository(Path(where)).models()
    except (OSError, ValueError):  # the command itself reports an invalid setting
        return []
    return [name for name in names if name.startswith(incomplete)]
