"""The heartbeat of a worker: a file that its event loop touches, and whose modification time the supervisor polls.

It is independent of the status files, so it continues on a full disk, while a background task waits for its restart,
and until a stopping worker has answered its last request. Independent of processes.
"""

import asyncio
import contextlib
import os
import time
from pathlib import Path

from service.atomic_files import file_fingerprint

HEARTBEAT_INTERVAL_S = 0.5
MAX_POLL_GAP_S = 2.0
"""Maximum seconds that one poll adds to a silence, because a longer time between polls means that the supervisor was
suspended."""


class Heartbeat:
    """The heartbeats of one worker process in `folder`."""

    def __init__(self, folder: Path, worker_id: int) -> None:
        self._file = heartbeat_file(folder, worker_id, os.getpid())

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Touches the file now, and then every HEARTBEAT_INTERVAL_S while the event loop runs."""
        with contextlib.suppress(OSError):  # without the file, the supervisor does not monitor this worker
            self._file.touch()
        self._beat(loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now_ns = time.monotonic_ns()  # the file system's own clock advances in steps of milliseconds
        with contextlib.suppress(OSError):
            os.utime(self._file, ns=(now_ns, now_ns))
        loop.call_later(HEARTBEAT_INTERVAL_S, self._beat, loop)


class SilenceMeter:
    """Measures by regular polls for how long a process has not touched its heartbeat file."""

    def __init__(self) -> None:
        self.silent_s = 0.0
        self._beat_ns: int | None = None
        self._polled_s: float | None = None

    def poll(self, beat_ns: int | None, now_s: float) -> float:
        """Returns the seconds of silence. `beat_ns` is the time of the last heartbeat, None before the first."""
        gap_s = 0.0 if self._polled_s is None else min(now_s - self._polled_s, MAX_POLL_GAP_S)
        is_silent = beat_ns is not None and beat_ns == self._beat_ns
        self.silent_s = self.silent_s + gap_s if is_silent else 0.0
        self._beat_ns, self._polled_s = beat_ns, now_s
        return self.silent_s


def heartbeat_file(folder: Path, worker_id: int, pid: int) -> Path:
    return folder / f"heartbeat-{worker_id}-{pid}"


def last_heartbeat_ns(folder: Path, worker_id: int, pid: int) -> int | None:
    """Returns the time of the process's last heartbeat, to be compared only with other heartbeats; None before the
    first."""
    fingerprint = file_fingerprint(heartbeat_file(folder, worker_id, pid))
    return None if fingerprint is None else fingerprint.modified_ns
