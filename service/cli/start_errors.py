"""Errors that prevent the start of the service, as one line of its log.

Logs as JSON are read by programs, for which a line in another format is lost.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from service.cli.options import GroupedSettings
from service.command_group import describe_system_error
from service.errors import ConvoyError
from service.observability import logs

LOG_FORMAT_VARIABLE = "CONVOY_LOG_FORMAT"


class StartCommand(GroupedSettings):
    """A command that reports its errors in the format of the log: as JSON, or as text like every other command.

    `describe_error` returns the message and the exit code of a ConvoyError.
    """

    def __init__(self, *args: Any, describe_error: Callable[[ConvoyError], tuple[str, int]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._describe_convoy_error = describe_error

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        with self._errors_in_log_format(context):
            return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        with self._errors_in_log_format(context):
            return super().invoke(context)

    @contextmanager
    def _errors_in_log_format(self, context: click.Context) -> Iterator[None]:
        try:
            yield
        except (click.UsageError, ConvoyError, MemoryError, OSError) as error:
            if logs.is_text(_log_format(context)):
                raise
            reason, exit_code = self._describe(error)
            logs.configure("info", "json")
            logs.event(logging.CRITICAL, "cannot start", reason=reason)
            sys.exit(exit_code)

    def _describe(self, error: click.UsageError | ConvoyError | MemoryError | OSError) -> tuple[str, int]:
        if isinstance(error, ConvoyError):
            return self._describe_convoy_error(error)
        if isinstance(error, click.UsageError):
            return error.format_message(), error.exit_code
        return describe_system_error(error)


def _log_format(context: click.Context) -> logs.LogFormat:
    """Returns the format that the flag or the variable names. Errors in the settings can occur before the settings
    exist, and the format itself can be wrong: then it is `auto`."""
    name = context.params.get("log_format") or os.environ.get(LOG_FORMAT_VARIABLE)
    formats: dict[str | None, logs.LogFormat] = {"json": "json", "text": "text"}
    return formats.get(name, "auto")
