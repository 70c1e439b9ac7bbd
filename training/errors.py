"""The errors that training raises for a user, and the exit codes of its commands.

The command line prints a `TrainingError` without a traceback. Any other exception is a bug in Convoy and ends with a
traceback. This module imports neither Keras nor any other large package.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ConvoyError
from service.exit_codes import EXIT_PEER_LOST, EXIT_RETRY, EXIT_USAGE_ERROR, may_pass

EXIT_CRASHED = 1


class TrainingError(Exception):
    """A mistake that the user can fix. The message says what is wrong and what to do."""

    exit_code = EXIT_USAGE_ERROR


class AccuracyRegression(TrainingError):
    """A new network is less accurate than required."""


class RetryLater(TrainingError):
    """A temporary failure: another process has locked the run, or the disk is full. A Job tries again."""

    exit_code = EXIT_RETRY


class PeerMissing(RetryLater):
    """The processes of a distributed run did not connect in time."""


class PeerLost(TrainingError):
    """Another process failed or ended. The message comes from that process if it sent one.

    The user made no mistake: all processes can be restarted and resume. The exit code differs from RetryLater's, so
    that a Job counts only the failure of the other process.
    """

    exit_code = EXIT_PEER_LOST


def system_error(message: str, error: OSError) -> TrainingError:
    """Returns a TrainingError with this message: RetryLater if the error may be temporary, such as a full disk."""
    return RetryLater(message) if may_pass(error) else TrainingError(message)


@contextmanager
def service_errors_as_training_errors() -> Iterator[None]:
    """Re-raises an error of the service as a TrainingError with its message and hint.

    For code that training and service share: reading a manifest, decoding an image, running a graph.
    """
    try:
        yield
    except ConvoyError as error:
        kind = RetryLater if may_pass(error.__cause__) else TrainingError
        raise kind(f"{error.message} {error.hint}") from error


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type when it has no message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
