"""Detects that this process or the whole machine was stopped for a while, because timeouts then prove nothing."""

import time

from tests.support.background_threads import BackgroundThreads

MIN_PAUSE_S = 3.0
"""Minimum duration of a pause. Shorter pauses end no connection, because the shortest time limit of the service and the
proxies is 5 s."""
INTERVAL_S = 0.5


class PauseCounter(BackgroundThreads):
    """Counts within the context how often a thread that wakes every half second woke late.

    It assumes that a stop from outside (SIGSTOP, a debugger) affects this process and all processes that it started.
    """

    def __init__(self) -> None:
        self.count = 0
        super().__init__(self._watch)

    def note(self, elapsed_s: float) -> None:
        """Counts a pause if an interval took much longer than it should."""
        self.count += elapsed_s > INTERVAL_S + MIN_PAUSE_S

    def settle(self) -> int:
        """Returns the number of pauses. Waits first until the thread can have detected a pause that has just ended."""
        self.stopping.wait(2 * INTERVAL_S)
        return self.count

    def _watch(self) -> None:
        last_s = time.monotonic()
        while not self.stopping.wait(INTERVAL_S):
            now_s = time.monotonic()
            self.note(now_s - last_s)
            last_s = now_s
