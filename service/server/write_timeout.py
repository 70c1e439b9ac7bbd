"""How fast a client takes what is written to it: one that takes too little for too long is let go, and its memory.

It costs nothing while the network takes what there is; it knows nothing of HTTP.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import termios

from service.observability import logs

CHECK_AGAIN_S = 1.0
RESET = struct.pack("ii", 1, 0)  # what the kernel still holds for the client is dropped with the connection


class SlowReaderGuard:
    """Of one connection. It may leave bytes waiting for `patience_s`, and a second longer for every `bytes_per_s` of
    them that it takes; then it is reset, with a line in the log."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience_s: float, bytes_per_s: int
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._patience_s = patience_s
        self._bytes_per_s = bytes_per_s
        self._timer: asyncio.TimerHandle | None = None
        self._began_s = 0.0
        self._waited = 0  # bytes, when it began

    def watch(self) -> None:
        """Bytes wait from now on, if they did not before."""
        if self._timer is None:
            self._began_s, self._waited = self._loop.time(), self._waiting_bytes()
            self._arm(self._patience_s)

    def stop(self) -> None:
        """They were taken, or the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        waiting = self._waiting_bytes()
        granted_s = self._patience_s + max(0, self._waited - waiting) / self._bytes_per_s
        left_s = granted_s - (self._loop.time() - self._began_s)
        if left_s > 0:
            self._arm(max(left_s, CHECK_AGAIN_S))
        else:
            self._timer = None
            self._reset(waiting)

    def _waiting_bytes(self) -> int:
        """What the client's machine has not confirmed: the kernel holds some of it, and takes more in leaps only."""
        with contextlib.suppress(OSError):
            in_kernel: int = struct.unpack("i", fcntl.ioctl(self._socket().fileno(), termios.TIOCOUTQ, bytes(4)))[0]
            return self._transport.get_write_buffer_size() + in_kernel
        return self._transport.get_write_buffer_size()

    def _reset(self, waiting: int) -> None:
        client, *_ = self._transport.get_extra_info("peername") or [None]
        logs.event(logging.INFO, "client does not read", client=client, bytes=waiting)
        with contextlib.suppress(OSError):
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()

    def _socket(self) -> socket.socket:
        found: socket.socket = self._transport.get_extra_info("socket")
        return found
