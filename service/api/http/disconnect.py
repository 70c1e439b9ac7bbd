"""Cancels the work for a request whose client has disconnected."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from starlette.types import Scope

from service.api.http.status_codes import ClientDisconnected

CONNECTION = "convoy.connection"
"""Key in the ASGI scope for the request's connection."""


class Connection:
    """The state of a connection. The server marks it when the client disconnects.

    A task per request that waits for the disconnect would be slower.
    """

    __slots__ = ("is_disconnected", "on_disconnect")

    def __init__(self) -> None:
        self.is_disconnected = False
        self.on_disconnect: Callable[[], object] | None = None

    def mark_disconnected(self) -> None:
        self.is_disconnected = True
        if self.on_disconnect is not None:
            self.on_disconnect()


class CancelOnDisconnect:
    """A context manager that cancels the current task, and raises ClientDisconnected, when the client disconnects."""

    def __init__(self, scope: Scope) -> None:
        self._connection: Connection = scope.get(CONNECTION) or Connection()

    def __enter__(self) -> None:
        if self._connection.is_disconnected:
            raise ClientDisconnected
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._connection.on_disconnect = task.cancel

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.on_disconnect = None
        if self._connection.is_disconnected and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientDisconnected from None
