"""Deadlines of queued requests. One timer serves all of them, because few requests reach their deadline."""

import asyncio

from service.inference.batch import QueuedRequest

MIN_INTERVAL_S = 0.005  # between two passes over all waiting requests
NEVER_S = float("inf")


class Deadlines:
    """The deadlines of the requests of one queue. Everything runs on the event loop's thread."""

    def __init__(self) -> None:
        self._due_s: dict[QueuedRequest, float] = {}
        self._next_s = NEVER_S
        self._timer: asyncio.TimerHandle | None = None

    def set(self, request: QueuedRequest, timeout_s: float) -> None:
        """Fails the request's future after `timeout_s`, unless the request is discarded earlier.

        The error is ExpiredInQueue if no image of the request was put into a batch, otherwise DeadlineExceeded.
        """
        loop = asyncio.get_running_loop()
        due_s = loop.time() + timeout_s
        self._due_s[request] = due_s
        if due_s < self._next_s:
            self._schedule(loop, due_s)

    def discard(self, request: QueuedRequest) -> None:
        """Removes a request that no longer waits."""
        self._due_s.pop(request, None)

    def _schedule(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_s = due_s
        self._timer = loop.call_at(due_s, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._next_s = None, NEVER_S
        now_s = loop.time()
        for request in [request for request, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[request]
            if not request.future.done():
                request.future.set_exception(request.expiry_error())
        if self._due_s:
            self._schedule(loop, max(now_s + MIN_INTERVAL_S, min(self._due_s.values())))
