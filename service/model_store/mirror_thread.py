"""Keeps a mirror up to date from a thread of its own, beside the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from service.errors import ConvoyError
from service.model_store.mirror import BucketMirror
from service.observability import logs

FIRST_SYNC_TIMEOUT_S = 10.0


class MirrorThread:
    """Syncs every `interval_s` seconds. The thread is a daemon: a stopping service does not wait for a download."""

    def __init__(
        self, mirror: BucketMirror, interval_s: float, first_sync_timeout_s: float = FIRST_SYNC_TIMEOUT_S
    ) -> None:
        self._mirror = mirror
        self._interval_s = interval_s
        self._first_sync_timeout_s = first_sync_timeout_s
        self._stop_requested = threading.Event()

    async def start(self) -> None:
        """Starts the thread. Returns when the first sync has ended, even if it failed: cached models can be served.

        Waits at most `first_sync_timeout_s` when versions are cached, without limit otherwise.
        """
        loop, first_sync_ended = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(first_sync_ended.set)

        threading.Thread(target=self._run, args=(notify,), name="bucket", daemon=True).start()
        timeout_s = None if self._mirror.is_empty() else self._first_sync_timeout_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(first_sync_ended.wait(), timeout_s)

    def stop(self) -> None:
        """Makes the current sync the last one, without waiting for it."""
        self._stop_requested.set()

    def _run(self, notify: Callable[[], None]) -> None:
        self._sync()
        notify()
        while not self._stop_requested.wait(self._interval_s):
            self._sync()

    def _sync(self) -> None:
        try:
            self._mirror.sync()
        except ConvoyError:
            pass  # the mirror has logged it, once
        except Exception:
            logs.logger.exception("models cannot be fetched")
