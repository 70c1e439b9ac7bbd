"""Notices that this process was stopped for a while, or the whole machine: time-outs then prove nothing."""

import threading
import time
from types import TracebackType

MIN_PAUSE_S = 3.0
"""Shorter pauses end no connection: the shortest time limit of the service and of the proxies is 5 s."""
INTERVAL_S = 0.5


class PauseCounter:
    """Counts, as a context, how often a thread that wakes every half second woke late.

    What is stopped from outside, with SIGSTOP or by a debugger, is assumed to be this process with all that it started.
    """

    def __init__(self) -> None:
        self.count = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PauseCounter":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def note(self, elapsed_s: float) -> None:
        """Counts a pause if an interval took much longer than it should."""
        self.count += elapsed_s > INTERVAL_S + MIN_PAUSE_S

    def settle(self) -> int:
        """Returns the number of pauses, after the thread has had the time to notice one that has just ended."""
        self._end.wait(2 * INTERVAL_S)
        return self.count

    def _watch(self) -> None:
        last_s = time.monotonic()
        while not self._end.wait(INTERVAL_S):
            now_s = time.monotonic()
            self.note(now_s - last_s)
            last_s = now_s
