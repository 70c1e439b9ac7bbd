"""Explains for the log why a worker process has ended, from its exit code."""

import signal

HUNG_EXIT = "The supervisor ended the worker because it hung.", "The earlier log line `worker hangs` has the cause."
"""Reason and action for a worker that the supervisor killed."""


def describe_exit(code: int) -> tuple[str, str]:
    """Returns why a process with this exit code has ended, and what to do about it."""
    if code == -signal.SIGKILL:
        return (
            "The worker was killed by SIGKILL. The kernel does this when memory is full.",
            "Raise the memory limit, or lower CONVOY_WORKERS: each worker loads all models.",
        )
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return (
            f"The worker was ended by {name}.",
            "See the earlier log lines. If a model's graph crashes, remove that version.",
        )
    return f"The worker ended itself with code {code}.", "The earlier log lines of this worker have the cause."
