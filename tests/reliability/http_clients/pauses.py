"""Detects that this process or the whole machine was stopped for a while, because timeouts then prove nothing."""

import threading
import time
from types import TracebackType

MIN_PAUSE_S = 3.0
"""Minimum duration of a pause. Shorter pauses end no connection, because the shortest time limit of the service and the
proxies is 5 s."""
INTERVAL_S = 0.5


class PauseCounter:
    """Counts within the context how often a thread that wakes every half second woke late.

    It assumes that a stop from outside (SIGSTOP, a debugger) affects this process and all processes that it started.
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
        """Returns the number of pauses. Waits first until the thread can have detected a pause that has just ended."""
        self._end.wait(2 * INTERVAL_S)
        return self.count

    def _watch(self) -> None:
        last_s = time.monotonic()
        while not self._end.wait(INTERVAL_S):
            now_s = time.monotonic()
            self.note(now_s - last_s)
            last_s = now_s
