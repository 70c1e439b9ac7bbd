"""Closes a connection so that the client receives the last response although it is still sending.

Closing a socket that has unread bytes makes the kernel reset the connection, and the client loses a response that it
has not read yet. Independent of HTTP.
"""

import asyncio
import contextlib

MAX_LINGER_S = 30.0
MAX_SILENCE_S = 5.0
MAX_DISCARDED_BYTES = 1024 * 1024 * 1024


class LingeringClose:
    """Shuts down the sending side and discards arriving bytes, until the client closes or a limit is reached."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._discarded_bytes = 0
        self._last_data_s = self._end_s = 0.0
        self.is_active = False

    def start(self) -> None:
        """Ends the connection in place of `close`. All data must have been written."""
        self.is_active = True
        with contextlib.suppress(OSError, RuntimeError):  # the connection is already lost
            self._transport.write_eof()
            self._transport.resume_reading()
        self._last_data_s = self._loop.time()
        self._end_s = self._last_data_s + MAX_LINGER_S
        self._set_timer()

    def discard(self, size: int) -> None:
        """Counts received bytes that are discarded."""
        self._discarded_bytes += size
        self._last_data_s = self._loop.time()
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self._transport.close()

    def stop(self) -> None:
        """Stops the timer: the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        due_s = min(self._last_data_s + MAX_SILENCE_S, self._end_s)
        self._timer = self._loop.call_later(due_s - self._loop.time(), self._check)

    def _check(self) -> None:
        self._timer = None
        if self._loop.time() < min(self._last_data_s + MAX_SILENCE_S, self._end_s):
            self._set_timer()
        else:
            self._transport.close()
