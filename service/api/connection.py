"""A request's connection: work for a client that hung up is given up."""

import asyncio
from types import TracebackType

from starlette.types import Receive

from service.api.errors import ClientGone

# Most requests are answered sooner than this, and never pay for a task that listens to their connection.
PATIENCE_S = 0.05


class UntilHangUp:
    """A context in which the current task is cancelled, and ClientGone raised, once the client has hung up.

    The body must have been read: the next message that `receive` gives is the disconnect.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._listen)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientGone from None

    def _listen(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
