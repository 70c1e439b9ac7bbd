"""Settings as flags of a command: every one that it names, with the setting's own words as help."""

import functools
from collections.abc import Callable
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

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
