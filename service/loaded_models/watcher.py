"""Polls the state file and the folder of models, and reconciles the registry with them.

Polls, because not every file system reports changes. Reaches other worker processes only through a StatusPublisher.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from service.atomic_files import FileFingerprint
from service.errors import BadState
from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState, StateFile
from service.model_store.mirror_thread import MirrorThread
from service.observability import logs

POLL_INTERVAL_S = 0.1  # for the state file and for refresh requests; each poll costs one stat
HEARTBEAT_INTERVAL_S = 0.5


class StatusPublisher(Protocol):
    """Publishes the status of this worker process to the others."""

    def publish_status(self, generation: int) -> None:
        """Publishes this worker's status. `generation` is the generation of the desired state that it has applied."""

    def refresh_request(self) -> int:
        """Returns a value that changes when another worker requests a fresh status."""


class Watcher:
    """Two background tasks: `follow` reconciles the registry, and `publish_regularly` publishes this worker's status.

    They are separate, because a version may take long to load. Each runs until it is cancelled, may be called again
    after it has raised an error, and calls `on_success` after each successful pass.
    """

    def __init__(
        self, state: StateFile, registry: Registry, publisher: StatusPublisher, scan_interval_s: float
    ) -> None:
        self._state = state
        self._registry = registry
        self._publisher = publisher
        self._hang_log, self._readiness_log = HangLog(registry), ReadinessLog(registry)
        self._scan_interval_s = scan_interval_s
        self._desired = DesiredState()
        self._fingerprint: FileFingerprint | None = None
        self._applied_generation = -1
        self._is_retry_due = False

    async def follow(self, bucket: MirrorThread | None, on_success: Callable[[], None]) -> None:
        """Waits for the first sync of `bucket`, if there is one, and then reconciles the registry regularly.

        Unexpected errors are raised. The loaded models keep serving.
        """
        if bucket is not None:
            await bucket.wait_for_first_sync()
        scanned_s = -self._scan_interval_s
        while True:
            self._is_retry_due |= self._read_state()
            if self._is_retry_due or time.monotonic() - scanned_s >= self._scan_interval_s:
                await self._registry.reconcile(self._desired, retry=self._is_retry_due)
                self._is_retry_due = False
                scanned_s = time.monotonic()
                if self._applied_generation != self._desired.generation:
                    self._applied_generation = self._desired.generation
                    self._publisher.publish_status(self._applied_generation)
                on_success()
            await asyncio.sleep(POLL_INTERVAL_S)

    async def publish_regularly(self, on_success: Callable[[], None]) -> None:
        """Publishes the status at each heartbeat, and immediately when another worker requests it."""
        published_s, answered_request = 0.0, 0
        while True:
            request = self._publisher.refresh_request()
            if request != answered_request or time.monotonic() - published_s >= HEARTBEAT_INTERVAL_S:
                self._hang_log.update()
                self._readiness_log.update()
                self._publisher.publish_status(self._applied_generation)
                published_s, answered_request = time.monotonic(), request
                on_success()
            await asyncio.sleep(POLL_INTERVAL_S)

    def _read_state(self) -> bool:
        """Reads the state file if it has changed, and returns whether it has.

        An invalid file is logged, and the last valid state remains active.
        """
        fingerprint = self._state.fingerprint()
        if fingerprint == self._fingerprint:
            return False
        try:
            self._desired = self._state.read()
            is_valid = True
        except BadState as error:
            logs.event(logging.ERROR, "state file is invalid", reason=error.message)
            is_valid = False
        self._fingerprint = fingerprint  # set last, so that the file is read again after any other error
        return is_valid


class HangLog:
    """Logs one line when a model starts to hang, and one line when it no longer hangs. Meanwhile the service is not
    ready."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._logged: set[str] = set()

    def update(self) -> None:
        """Compares the models that hang now with those of the last call. Must be called regularly."""
        hanging = self._registry.hung_models()
        for model in sorted(hanging.keys() - self._logged):
            logs.event(logging.ERROR, "model hangs", model=model, reason=hanging[model])
        for model in sorted(self._logged - hanging.keys()):
            logs.event(logging.INFO, "model no longer hangs", model=model)
        self._logged = set(hanging)


class ReadinessLog:
    """Logs one line when the worker has loaded its models and is not ready, and one line when it is ready again."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._logged: dict[str, str] = {}

    def update(self) -> None:
        """Compares the reasons with those of the last call. Must be called regularly."""
        if not self._registry.has_loaded:
            return
        reasons = self._registry.not_ready_reasons()
        if reasons and reasons.keys() != self._logged.keys():
            logs.event(logging.ERROR, "service is not ready", reasons=reasons)
        elif self._logged and not reasons:
            logs.event(logging.INFO, "service is ready again")
        self._logged = reasons
