"""A request's connection: work for a client that hung up is given up."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from starlette.types import Scope

from service.api.http.errors import ClientGone

CONNECTION = "convoy.connection"
"""Where in a request's scope the server puts its connection."""


class Connection:
    """The server tells here that the client has hung up: a task that listens for it would cost every request more."""

    __slots__ = ("lost", "on_loss")

    def __init__(self) -> None:
        self.lost = False
        self.on_loss: Callable[[], object] | None = None

    def lose(self) -> None:
        self.lost = True
        if self.on_loss is not None:
            self.on_loss()


class CancelOnDisconnect:
    """A context in which the current task is cancelled, and ClientGone raised, once the client has hung up."""

    def __init__(self, scope: Scope) -> None:
        self._connection: Connection = scope.get(CONNECTION) or Connection()

    def __enter__(self) -> None:
        if self._connection.lost:
            raise ClientGone
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._connection.on_loss = task.cancel

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.on_loss = None
        if self._connection.lost and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientGone from None
