"""Loads versions of models, and detects when the content on disk of a loaded version has changed.

Records and logs the versions that cannot be loaded. Independent of the desired state.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from service.errors import ConvoyError
from service.inference.input_budget import InputBudget
from service.inference.session import WARM_UP_TIMEOUT_S
from service.loaded_models import loaded_version
from service.loaded_models.engine_selection import EngineChoices
from service.loaded_models.load_failures import LoadFailures
from service.loaded_models.loaded_version import LoadedVersion
from service.model_store.desired_state import ModelSpec
from service.model_store.repository import Repository, VersionFingerprint
from service.observability import logs
from service.observability.metrics import Metrics
from service.settings import Settings


class VersionLoader:
    """Loads versions one after the other in a separate thread.

    A second load at the same time would distort the run times that each load measures to choose the engine and the
    batch size.
    """

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        metrics: Metrics,
        failures: LoadFailures,
        warm_up_timeout_s: float = WARM_UP_TIMEOUT_S,
        worker_id: int = 0,
        engine_choices: EngineChoices | None = None,
    ) -> None:
        """All versions share the memory for images that the settings allow for this process."""
        self._repository = repository
        self._settings = settings
        self._metrics = metrics
        self._failures = failures
        self._warm_up_timeout_s = warm_up_timeout_s
        self._worker_id = worker_id
        self._engine_choices = engine_choices or EngineChoices()
        self._input_budget = InputBudget(settings.max_input_bytes)
        self._fingerprints: dict[tuple[str, int], VersionFingerprint] = {}
        # Not the default executor, because at its end asyncio.run would wait for a version that is being loaded.
        self._executor = ThreadPoolExecutor(1, "load")
        self.loading_version = ""
        """The version that is being loaded, as `<model>/<version>`; empty if there is none."""

    async def up_to_date(
        self, name: str, number: int, spec: ModelSpec, loaded: LoadedVersion | None, *, may_be_copied: bool
    ) -> LoadedVersion | None:
        """Returns `loaded` if the version's content on disk has not changed since, otherwise loads the version again.

        If loading fails, the failure is recorded and `loaded` is returned, which may be None. With `may_be_copied` the
        failure is logged when the files have stopped changing, otherwise immediately.
        """
        fingerprint = await asyncio.to_thread(self._repository.fingerprint, name, number)
        if loaded is not None and self._fingerprints.get((name, number)) == fingerprint:
            self._failures.clear(name, number)
        elif self._failures.has_failed_with(name, number, fingerprint):
            self._report_failure(name, number)
        else:
            try:
                load = partial(self._load, name, number, spec, loaded)
                loaded = await asyncio.get_running_loop().run_in_executor(self._executor, load)
                self._fingerprints[name, number] = fingerprint
                self._failures.clear(name, number)
            except Exception as error:  # the other versions must still be loaded
                self._failures.record(name, number, fingerprint, _reason(error))
                if not may_be_copied:
                    self._report_failure(name, number)
        return loaded

    def forget(self, name: str, number: int) -> None:
        """Forgets the fingerprint of a version that is no longer loaded."""
        self._fingerprints.pop((name, number), None)

    def _report_failure(self, name: str, number: int) -> None:
        if self._failures.confirm(name, number):
            reason = self._failures.reason_for_version(name, number)
            logs.event(logging.ERROR, "version is broken", model=name, version=number, reason=reason)

    def _load(self, name: str, number: int, spec: ModelSpec, loaded: LoadedVersion | None) -> LoadedVersion:
        self.loading_version = f"{name}/{number}"
        try:
            folder = self._repository.open(name, number)
            # If a link now points to another folder with equal content, the version is loaded again nevertheless,
            # because the card and the feature maps are read from its folder.
            if loaded is not None and (loaded.digest, loaded.folder.path) == (folder.digest, folder.path):
                folder.graph_path(loaded.variant)  # raises if the graph has changed while the manifest has not
                return loaded
            return loaded_version.load(
                folder,
                spec,
                self._settings,
                self._metrics,
                self._warm_up_timeout_s,
                self._input_budget,
                self._worker_id,
                self._engine_choices,
            )
        finally:
            self.loading_version = ""


def _reason(error: Exception) -> str:
    return error.full_message if isinstance(error, ConvoyError) else str(error) or type(error).__name__
