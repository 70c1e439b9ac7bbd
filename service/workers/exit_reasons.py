"""Explains for the log why a worker process has ended, from its exit code. Knows no processes."""

import signal

HUNG_EXIT = "The supervisor ended it because it hung.", "The log line `worker hangs` before it has the cause."
"""Reason and action for a worker that the supervisor killed."""


def describe_exit(code: int) -> tuple[str, str]:
    """Returns why a process with this exit code has ended, and what to do about it."""
    if code == -signal.SIGKILL:
        return (
            "It was killed by SIGKILL. The kernel does so when memory is full.",
            "Raise the memory limit, or lower CONVOY_WORKERS: each worker loads all models.",
        )
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return (
            f"It was ended by {name}.",
            "See the log lines before it. If a model's graph crashes, remove that version.",
        )
    return f"It ended itself with code {code}.", "See the log lines of this worker before it; they have the cause."
