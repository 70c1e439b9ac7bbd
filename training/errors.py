"""The errors that training raises for a user: the command line prints them without a traceback, with their exit code.

A mistake that is no `TrainingError` is Convoy's own, and ends with a traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ConvoyError


class TrainingError(Exception):
    """A mistake that the user can fix. The message says what is wrong and what to do."""

    exit_code = 2


class AccuracyRegression(TrainingError):
    """A new network is less accurate than required."""


class PeerLost(TrainingError):
    """Another process has failed or ended; the message is its own where it has sent one.

    Not a mistake of the user: all processes can be started again and resume. A Job knows it by the exit code.
    """

    exit_code = 4


@contextmanager
def service_errors_as_training_errors() -> Iterator[None]:
    """Raises an error of the service's half as a TrainingError with its message and hint.

    For code that both halves share: reading a manifest, decoding an image, running a graph.
    """
    try:
        yield
    except ConvoyError as error:
        raise TrainingError(f"{error.message} {error.hint}") from error
