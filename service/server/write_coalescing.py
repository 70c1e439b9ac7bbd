"""Writes each response with a single system call. uvicorn writes the headers and the body of a response separately.
Each write is a system call, and the first write wakes the client for an incomplete response.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from service.server.lingering_close import LingeringClose


class CoalescingTransport:
    """A transport that collects the writes of one iteration of the event loop, and sends them together at its end.

    If the transport is closed with unsent bytes, the connection stays open until they are sent, and `on_unsent` is
    called. If the client `may_send_more`, the transport closes with `lingering`.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        on_unsent: Callable[[], None],
        lingering: LingeringClose,
        may_send_more: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._on_unsent = on_unsent
        self._lingering = lingering
        self._may_send_more = may_send_more
        self._pending: list[bytes] = []
        self._is_lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._lingering.is_active or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if self._lingering.is_active:
            return
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        if self.is_closing():
            return
        self._flush()
        if self._may_send_more():
            self._lingering.start()
        else:
            self._transport.close()
        if self._transport.get_write_buffer_size():
            self._on_unsent()

    def mark_lost(self) -> None:
        """Marks the connection as lost: later writes are dropped instead of raising an error."""
        self._is_lost = True

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending and not self._is_lost:
            self._transport.writelines(pending)
