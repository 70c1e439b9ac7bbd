"""Resets connections whose client reads too slowly, so that unsent responses do not fill the memory. Costs nothing
while the network accepts all bytes. Independent of HTTP.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import termios

from service.observability import logs
from service.server.minimum_rate import MinimumRate

MIN_CHECK_INTERVAL_S = 1.0
LINGER_RESET = struct.pack("ii", 1, 0)  # also drops the bytes in the kernel's buffer


class SlowReaderGuard:
    """Guards one connection. When the client reads fewer bytes than MinimumRate requires, resets the connection and
    logs this."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, timeout_s: float, bytes_per_s: int
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._timeout_s = timeout_s
        self._rate = MinimumRate(timeout_s, bytes_per_s)
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_bytes = 0  # at the last check

    def watch(self) -> None:
        """Starts the timer when bytes begin to wait. Does nothing if the timer is running."""
        if self._timer is None:
            self._rate.start(self._loop.time())
            self._waiting_bytes = self._unacknowledged_bytes()
            self._set_timer(self._timeout_s)

    def stop(self) -> None:
        """Stops the timer, because no bytes wait any more, or the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._check)

    def _check(self) -> None:
        unacknowledged_bytes = self._unacknowledged_bytes()
        if not unacknowledged_bytes:  # everything is sent, and the connection stays open
            self._timer = None
            return
        self._rate.add(max(0, self._waiting_bytes - unacknowledged_bytes), self._loop.time())
        self._waiting_bytes = unacknowledged_bytes
        remaining_s = self._rate.remaining_s(self._loop.time())
        if remaining_s > 0:
            self._set_timer(max(remaining_s, MIN_CHECK_INTERVAL_S))
        else:
            self._timer = None
            self._reset(unacknowledged_bytes)

    def _unacknowledged_bytes(self) -> int:
        """Bytes that the client's machine has not acknowledged, including those that the kernel holds."""
        with contextlib.suppress(OSError):
            in_kernel: int = struct.unpack("i", fcntl.ioctl(self._socket().fileno(), termios.TIOCOUTQ, bytes(4)))[0]
            return self._transport.get_write_buffer_size() + in_kernel
        return self._transport.get_write_buffer_size()

    def _reset(self, unacknowledged_bytes: int) -> None:
        client, *_ = self._transport.get_extra_info("peername") or [None]
        logs.event(logging.INFO, "client does not read", client=client, bytes=unacknowledged_bytes)
        with contextlib.suppress(OSError):
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self._transport.abort()

    def _socket(self) -> socket.socket:
        sock: socket.socket = self._transport.get_extra_info("socket")
        return sock
