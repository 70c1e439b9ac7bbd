"""The error that training raises for a user's mistake; the command line prints it without a traceback."""


class TrainingError(Exception):
    """A mistake that the user can fix. The message says what is wrong and what to do."""

    exit_code = 2


class AccuracyRegression(TrainingError):
    """A new network is less accurate than what was asked of it."""
