"""When those who wait run out of time: one timer for all of them, since hardly anybody ever does."""

import asyncio

from service.errors import DeadlineExceeded
from service.inference.batch import QueuedRequest

STEP_S = 0.005  # between two looks at all who wait, at least
NEVER_S = float("inf")


class Deadlines:
    """Of the entries of one queue. Everything runs on the event loop's thread."""

    def __init__(self) -> None:
        self._due_s: dict[QueuedRequest, float] = {}
        self._next_s = NEVER_S
        self._timer: asyncio.TimerHandle | None = None

    def set(self, entry: QueuedRequest, timeout_s: float) -> None:
        """Fails the entry's slot with DeadlineExceeded after that time, unless it is dropped before."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + timeout_s
        self._due_s[entry] = due_s
        if due_s < self._next_s:
            self._look_at(loop, due_s)

    def drop(self, entry: QueuedRequest) -> None:
        """Nobody waits for it any more."""
        self._due_s.pop(entry, None)

    def _look_at(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_s = due_s
        self._timer = loop.call_at(due_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._next_s = None, NEVER_S
        now_s = loop.time()
        for entry in [entry for entry, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[entry]
            if not entry.future.done():
                entry.future.set_exception(
                    DeadlineExceeded("The answer was not there within the request's time limit.")
                )
        if self._due_s:
            self._look_at(loop, max(now_s + STEP_S, min(self._due_s.values())))
