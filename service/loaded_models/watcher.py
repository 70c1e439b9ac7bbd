"""Follows the state file and the folder of models, and keeps the registry to them.

Polls: not every file system that holds models tells of changes.
"""

import asyncio
import logging
import time

from service.errors import BadState
from service.loaded_models.registry import Registry
from service.loaded_models.watchdog import Watchdog
from service.model_store.desired_state import DesiredState, StateFile
from service.model_store.mirror_thread import Follower
from service.observability import logs
from service.workers.worker_group import WorkerGroup

LOOK_EVERY_S = 0.1  # at the state file and for questions: one stat each
BEAT_EVERY_S = 0.5


class Watcher:
    """Two tasks: one reconciles, the other tells the board of this worker even while a load takes long."""

    def __init__(self, state: StateFile, registry: Registry, worker_group: WorkerGroup, scan_interval_s: float) -> None:
        self._state = state
        self._registry = registry
        self._worker_group = worker_group
        self._watchdog = Watchdog(registry)
        self._scan_interval_s = scan_interval_s
        self._wanted = DesiredState()
        self._fingerprint: tuple[int, int, int] | None = None
        self._applied = -1

    async def run(self, bucket: Follower | None) -> None:
        """Until it is cancelled. Models that come from a bucket are waited for once; then what is cached is served."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._follow(bucket))

    async def _follow(self, bucket: Follower | None) -> None:
        if bucket is not None:
            await bucket.start()
        scanned_s = -self._scan_interval_s
        while True:
            changed = self._read()
            if changed or time.monotonic() - scanned_s >= self._scan_interval_s:
                await self._reconcile(changed)
                scanned_s = time.monotonic()
                if self._applied != self._wanted.generation:
                    self._applied = self._wanted.generation
                    self._worker_group.post(self._applied)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _reconcile(self, retry: bool) -> None:
        """Whatever goes wrong, what is loaded keeps serving, and the next look tries again."""
        try:
            await self._registry.reconcile(self._wanted, retry=retry)
        except Exception:
            logs.logger.exception("models cannot be reconciled")

    async def _beat(self) -> None:
        posted_s, answered = 0.0, 0
        while True:
            asked = self._worker_group.asked()
            if asked != answered or time.monotonic() - posted_s >= BEAT_EVERY_S:
                self._watchdog.look()
                self._worker_group.post(self._applied)
                posted_s, answered = time.monotonic(), asked
            await asyncio.sleep(LOOK_EVERY_S)

    def _read(self) -> bool:
        """Whether there is something new in the state file; a bad one is logged, and what was wanted before stays."""
        fingerprint = self._state.fingerprint()
        if fingerprint == self._fingerprint:
            return False
        self._fingerprint = fingerprint
        try:
            self._wanted = self._state.read()
        except BadState as error:
            logs.event(logging.ERROR, "state file is bad", reason=error.message)
            return False
        return True
