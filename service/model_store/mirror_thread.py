"""Keeps a mirror up to date in a separate thread, outside the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from service.errors import ConvoyError
from service.model_store.mirror import BucketMirror

FIRST_SYNC_TIMEOUT_S = 10.0


class MirrorThread:
    """Syncs every `interval_s` seconds. The thread is a daemon: a stopping service does not wait for a download."""

    def __init__(
        self, mirror: BucketMirror, interval_s: float, first_sync_timeout_s: float = FIRST_SYNC_TIMEOUT_S
    ) -> None:
        self._mirror = mirror
        self._interval_s = interval_s
        self._first_sync_timeout_s = first_sync_timeout_s
        self._first_sync_ended = asyncio.Event()

    async def run(self, on_success: Callable[[], None]) -> None:
        """Syncs until it is cancelled. A sync that is running at that time becomes the last sync, and is not waited
        for.

        Calls `on_success` after each sync, even if the bucket could not be reached. Raises any other error of a sync.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        stop_requested = threading.Event()

        def call_on_loop(callback: Callable[..., None], *args: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(callback, *args)

        def sync_regularly() -> None:
            try:
                while not stop_requested.is_set():
                    self._sync()
                    call_on_loop(self._on_synced, on_success)
                    stop_requested.wait(self._interval_s)
            except Exception as error:
                call_on_loop(self._on_failed, ended, error)

        threading.Thread(target=sync_regularly, name="bucket", daemon=True).start()
        try:
            await ended
        finally:
            stop_requested.set()

    async def wait_for_first_sync(self) -> None:
        """Returns when a sync has ended, even if it failed: cached models can be served.

        Waits at most `first_sync_timeout_s` when versions are cached, without limit otherwise.
        """
        timeout_s = None if self._mirror.is_empty() else self._first_sync_timeout_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._first_sync_ended.wait(), timeout_s)

    def _sync(self) -> None:
        with contextlib.suppress(ConvoyError):  # the mirror has logged it
            self._mirror.sync()

    def _on_synced(self, on_success: Callable[[], None]) -> None:
        self._first_sync_ended.set()
        on_success()

    def _on_failed(self, ended: "asyncio.Future[None]", error: Exception) -> None:
        self._first_sync_ended.set()
        if not ended.done():
            ended.set_exception(error)
