"""The exit codes of all commands, `convoy` and `convoy-train`. Orchestrators use them to decide what to do next.

Independent of the commands. The table in the documentation is generated from MEANINGS.
"""

import errno

EXIT_DONE = 0
EXIT_PARTIAL = 1
EXIT_USAGE_ERROR = 2
EXIT_ACCURACY_REGRESSION = 3
EXIT_RETRY = 4
EXIT_PEER_LOST = 5
EXIT_BUG = 70
EXIT_SIGNAL_BASE = 128
"""Exit codes above this are signal numbers plus 128, as in shells."""
EXIT_STOPPED = 130

FINAL_EXIT_CODES = (EXIT_USAGE_ERROR, EXIT_ACCURACY_REGRESSION)
"""Running the same command again does not help: Jobs do not retry these."""

MEANINGS = {
    "0": "Done.",
    "1": "Partially done. Standard error lists what failed: `batch` and `classify` could not read some images, "
    "`verify` found a fault, `serve` did not answer every accepted request. `convoy-train`: an unexpected error, "
    "with a traceback.",
    "2": "The command or a setting is wrong; running it again does not help. Standard error says what to do.",
    "3": "`convoy-train retrain` and `quantize`: the new network is less accurate than required, and nothing was "
    "published.",
    "4": "A temporary problem: an unreachable bucket, another process that uses the output or the run, a full disk, "
    "too little memory, a process of a distributed run that did not join, workers of `serve` that cannot start. "
    "The same command resumes.",
    "5": "`convoy-train run --distributed`: another process of the run was lost. The same command in all processes "
    "resumes.",
    "70": "`convoy`: an unexpected error, with a traceback.",
    "130, 143": "Stopped by Ctrl-C or SIGTERM; the same command resumes.",
}

PASSING_ERRNOS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.EINTR),
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
        *(errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRINUSE, errno.ENOTCONN, errno.EPIPE),
        *(errno.EHOSTDOWN, errno.ENETRESET, errno.ENOBUFS, errno.ENOLCK, errno.ENOLINK),
    }
)
"""Transient errors of the system: no space, no memory, or a resource that is unreachable now."""


def may_pass(error: BaseException | None) -> bool:
    """Whether this is a transient error of the system, so that the same command may succeed later."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in PASSING_ERRNOS)
