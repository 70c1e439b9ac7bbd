"""The click group of both command lines, `convoy` and `convoy-train`.

It turns errors that a user can fix into one line on standard error and an exit code. It knows no error class of either
half: each half passes its own base class and the function that describes it.
"""

import sys
from collections.abc import Callable
from typing import Any

import click

from service.exit_codes import EXIT_RETRY, EXIT_STOPPED, EXIT_USAGE_ERROR, may_pass


def echo_line(text: str, *, err: bool = False) -> None:
    """Prints a line. Escapes control characters in names and labels that others have chosen: terminals obey them."""
    click.echo("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text), err=err)


class CommandGroup(click.Group):
    """Exits without a traceback on the errors that it was given, and lists commands in the order of registration.

    `describe_error` returns the message and the exit code of an instance of `error_type`. An OSError exits with
    EXIT_RETRY if it may pass, such as a full disk, otherwise with EXIT_USAGE_ERROR; a MemoryError with
    EXIT_RETRY; Ctrl-C with EXIT_STOPPED.
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
        except BrokenPipeError:  # the reader of our output has closed it: click exits quietly
            raise
        except OSError as error:
            message = f"{error.filename or 'The system'}: {error.strerror or error}."
            exit_code = EXIT_RETRY if may_pass(error) else EXIT_USAGE_ERROR
        except MemoryError:
            message, exit_code = "There was too little memory.", EXIT_RETRY
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(EXIT_STOPPED)
        for line in f"Error: {message}".split("\n"):
            echo_line(line, err=True)
        sys.exit(exit_code)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)
