"""One write for each answer.

uvicorn writes an answer's headers and its body apart, and each write to a socket is a call into the kernel, which wakes
the client up for half an answer.
"""

import asyncio
from collections.abc import Callable
from typing import Any


class CoalescingTransport:
    """A transport that writes at the end of the loop's turn what was written in the turn. `left` hears of bytes that
    are not out yet when it is closed: it stays open for them."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, left: Callable[[], None]) -> None:
        self._transport = transport
        self._loop = loop
        self._left = left
        self._waiting: list[bytes] = []
        self._is_lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        if self._transport.is_closing():
            return
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._left()

    def lose(self) -> None:
        """The connection is gone: what is written goes nowhere, where the transport would raise."""
        self._is_lost = True

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and not self._is_lost:
            self._transport.writelines(waiting)
