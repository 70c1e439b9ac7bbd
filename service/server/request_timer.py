"""The timer of one connection, which limits the time until the next request, its headers, and its body.

Independent of HTTP and sockets.
"""

import asyncio
from collections.abc import Callable

from service.server.minimum_rate import MinimumRate

IDLE, HEAD, BODY = "idle", "head", "body"
"""The part of a request that the timer waits for."""
MIN_CHECK_INTERVAL_S = 1.0


class RequestTimer:
    """Calls `on_timeout` with the part that did not arrive in time. Waits longer while `is_paused`, because the service
    itself then makes the client wait."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts_s: dict[str, float],
        bytes_per_s: int,
        on_timeout: Callable[[str], None],
        is_paused: Callable[[], bool],
    ) -> None:
        """`timeouts_s` has the seconds for each part. The time for a body grows while bytes arrive: see MinimumRate."""
        self._loop = loop
        self._timeouts_s = timeouts_s
        self._body_rate = MinimumRate(timeouts_s[BODY], bytes_per_s)
        self._on_timeout = on_timeout
        self._is_paused = is_paused
        self._timer: asyncio.TimerHandle | None = None
        self._part = IDLE
        self.due_s = 0.0
        """Time of the event loop's clock at which the granted time ends."""

    def start(self, part: str) -> None:
        """Starts the time for the part, unless the timer already waits for it."""
        if self._timer is None or self._part is not part:
            self.cancel()
            self._part = part
            self._body_rate.start(self._loop.time())
            self._set(self._timeouts_s[part])

    def add_body_bytes(self, size: int) -> None:
        """Counts bytes that arrived while the timer waits for a body."""
        self._body_rate.add(size, self._loop.time())

    def begin_request(self) -> None:
        """Makes the next `start` start its time again, even for the same part, because another request has begun."""
        self._part = IDLE

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, seconds: float) -> None:
        self.due_s = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._part is BODY:
            now_s = self._loop.time()
            if self._is_paused():
                self._body_rate.start(now_s)
            if (remaining_s := self._body_rate.remaining_s(now_s)) > 0:
                self._set(max(remaining_s, MIN_CHECK_INTERVAL_S))
                return
        self._on_timeout(self._part)
