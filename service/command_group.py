"""The click group of both command lines, `convoy` and `convoy-train`.

It prints errors that a user can fix as one line on standard error, and exits with their code. It is independent of the
error classes of both halves: each half passes its base class and a function that describes an error.
"""

import sys
from collections.abc import Callable
from typing import Any

import click

from service.exit_codes import EXIT_RETRY, EXIT_STOPPED, EXIT_USAGE_ERROR, may_pass


def echo_line(text: str, *, err: bool = False) -> None:
    """Prints a line. Escapes control characters, which untrusted names and labels may contain and terminals execute."""
    click.echo("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text), err=err)


def describe_system_error(error: MemoryError | OSError) -> tuple[str, int]:
    """Returns the message and the exit code of an error of the system, such as a full disk."""
    if isinstance(error, MemoryError):
        return "There was too little memory.", EXIT_RETRY
    message = f"{error.filename or 'The system'}: {error.strerror or error}."
    return message, EXIT_RETRY if may_pass(error) else EXIT_USAGE_ERROR


class CommandGroup(click.Group):
    """Exits without a traceback on errors of `error_type`, and lists commands in the order of registration.

    `describe_error` returns the message and the exit code of such an error. An OSError exits with EXIT_RETRY if it is
    transient, such as a full disk, otherwise with EXIT_USAGE_ERROR. A MemoryError exits with EXIT_RETRY, and Ctrl-C
    with EXIT_STOPPED.
    """

    def __init__(
        self,
        *args: Any,
        error_type: type[Exception],
        describe_error: Callable[[Any], tuple[str, int]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._error_type = error_type
        self._describe_error = describe_error

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except self._error_type as error:
            message, exit_code = self._describe_error(error)
        except BrokenPipeError:  # the reader has closed the pipe, and click exits without a message
            raise
        except (MemoryError, OSError) as error:
            message, exit_code = describe_system_error(error)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(EXIT_STOPPED)
        for line in f"Error: {message}".split("\n"):
            echo_line(line, err=True)
        sys.exit(exit_code)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)
