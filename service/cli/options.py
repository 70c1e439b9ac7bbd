"""Options that the commands share: settings as flags, and the completion of model names.

The help of a flag is the description of its setting.
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
from service.validation_messages import describe_first

SETTING_GROUPS = {
    "host": "Address",
    "models": "Models",
    "max_batch_size": "Batches and queues",
    "workers": "Processes and hardware",
    "request_timeout_ms": "Times",
    "max_body_bytes": "Sizes and connections",
    "keys": "Access",
    "log_level": "Logs, traces and metrics",
}
"""Headings of the settings in the help, each by the first setting below it."""


class GroupedSettings(click.Command):
    """A command with a flag for every setting, which its help lists under headings."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        heading = "Options"
        rows: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            heading = SETTING_GROUPS.get(parameter.name or "", heading)
            if (row := parameter.get_help_record(context)) is not None:
                rows.setdefault("Options" if parameter.name == "help" else heading, []).append(row)
        for name, definitions in rows.items():
            with formatter.section(name):
                formatter.write_dl(definitions)


def settings_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds a flag per named setting (by default all settings), and passes Settings as the command's first argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        selected = names or tuple(Settings.model_fields)

        @functools.wraps(command)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            values = {name: kwargs.pop(name) for name in selected}
            return command(_build_settings(values), *args, **kwargs)

        wrapped: Callable[..., Any] = with_settings
        for name in reversed(selected):
            wrapped = _setting_option(name, Settings.model_fields[name])(wrapped)
        return wrapped

    return decorate


def _setting_option(name: str, field: FieldInfo) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    help_text = f"{field.description} Default: {field.default}. Variable: CONVOY_{name.upper()}."
    return click.option(f"--{name.replace('_', '-')}", name, default=None, help=help_text, metavar="VALUE")


def _build_settings(values: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        name, reason = describe_first(error.errors())
        flag = f"--{name.replace('_', '-')} or CONVOY_{name.upper()}"
        raise click.UsageError(f"{flag} is {error.errors()[0]['input']!r}: {reason}.") from None


def complete_model_name(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Returns the models of --models or CONVOY_MODELS whose names begin with `incomplete`.

    Completion never prints an error and never connects to a bucket.
    """
    try:
        models = context.params.get("models") or Settings().models
        names = [] if is_url(models) else Repository(Path(models)).models()
    except (OSError, ValueError):  # the command itself reports an invalid setting
        return []
    return [name for name in names if name.startswith(incomplete)]
