"""Keeps a mirror up to date from a thread of its own, beside the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from service.errors import ConvoyError
from service.model_store.mirror import BucketMirror
from service.observability import logs

PATIENCE_S = 10.0


class Follower:
    """Syncs every `every_s` seconds. The thread is a daemon: a stopping service does not wait for a download."""

    def __init__(self, mirror: BucketMirror, every_s: float, patience_s: float = PATIENCE_S) -> None:
        self._mirror = mirror
        self._every_s = every_s
        self._patience_s = patience_s
        self._stopping = threading.Event()

    async def start(self) -> None:
        """Starts, and returns when the first sync is over, whatever became of it: what is there can be served.

        Where something has been there before, a bucket that hangs is not waited for past `patience_s`.
        """
        loop, tried = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tried.set)

        threading.Thread(target=self._run, args=(tell,), name="bucket", daemon=True).start()
        patience_s = None if self._mirror.is_empty() else self._patience_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(tried.wait(), patience_s)

    def stop(self) -> None:
        """The sync that runs now is the last; nobody waits for it."""
        self._stopping.set()

    def _run(self, tell: Callable[[], None]) -> None:
        self._sync()
        tell()
        while not self._stopping.wait(self._every_s):
            self._sync()

    def _sync(self) -> None:
        try:
            self._mirror.sync()
        except ConvoyError:
            pass  # the mirror has logged it, once
        except Exception:
            logs.logger.exception("models cannot be fetched")
