"""One write for each answer.

uvicorn writes an answer's headers and its body apart, and each write to a socket is a call into the kernel, which wakes
the client up for half an answer.
"""

import asyncio
from typing import Any


class JoinedWrites:
    """A transport that writes at the end of the loop's turn what was written in the turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._transport.writelines(waiting)
