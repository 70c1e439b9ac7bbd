"""Closes versions that no new request can find when their last requests are done, and then trims the memory once.
Independent of the versions that are loaded.
"""

import asyncio
import logging

from service import malloc
from service.loaded_models.loaded_version import LoadedVersion
from service.observability import logs
from service.observability.metrics import Metrics


class VersionCloser:
    """Closes versions in background tasks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._closing: set[asyncio.Task[None]] = set()
        self._trimming: set[asyncio.Task[None]] = set()
        self._is_process_ending = False

    def close_later(self, loaded: LoadedVersion) -> None:
        logs.event(logging.INFO, "version is unloaded", model=loaded.model, version=loaded.version)
        closing = asyncio.get_running_loop().create_task(loaded.close())
        self._closing.add(closing)
        closing.add_done_callback(self._on_closed)

    async def wait_at_end(self) -> None:
        """Waits until all versions are closed. Does not trim the memory, because the process ends."""
        self._is_process_ending = True
        await asyncio.gather(*self._closing, *self._trimming, return_exceptions=True)

    def _on_closed(self, closing: asyncio.Task[None]) -> None:
        self._closing.discard(closing)
        error = None if closing.cancelled() else closing.exception()
        if error is not None:
            self._metrics.background_failures.labels("unload").inc()
            logs.logger.error("version is not unloaded completely", exc_info=error)
        if not self._closing and not self._is_process_ending:  # a trim per version would take seconds with many models
            trimming = asyncio.get_running_loop().create_task(asyncio.to_thread(malloc.trim))
            self._trimming.add(trimming)
            trimming.add_done_callback(self._trimming.discard)
