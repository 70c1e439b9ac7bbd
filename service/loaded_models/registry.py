"""The registry of loaded models: their versions, the default version of each, and the labels of versions.

`reconcile` changes it to match the desired state and the disk while requests are served: new versions are loaded before
old ones are unloaded.
"""

import asyncio
import logging
from functools import partial
from typing import NamedTuple

from service.errors import BrokenModel, ConvoyError, NotReady, UnknownModel, UnknownVersion
from service.inference.providers import CPU_PROVIDER
from service.inference.session import WARM_UP_TIMEOUT_S
from service.loaded_models.engine_selection import EngineChoices
from service.loaded_models.load_failures import LoadFailures
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.model_root import ModelRoot
from service.loaded_models.version_closer import VersionCloser
from service.loaded_models.version_loader import VersionLoader
from service.model_store.desired_state import DesiredState, ModelSpec
from service.model_store.repository import Repository
from service.observability import logs
from service.observability.metrics import Metrics
from service.settings import Settings

# Applies even if the request timeout is short, because a machine that stalls for a moment is not a reason to restart a
# process.
MIN_STUCK_S = 5.0


class RepositoryEntry(NamedTuple):
    """One version on disk, and whether it is ready to serve.

    `reason` says why the version is not loaded, or why the newer files of a loaded version are not; empty if neither
    applies.
    """

    model: str
    version: str
    is_ready: bool
    reason: str


class LoadedModel:
    """The loaded versions of one model."""

    def __init__(self, versions: dict[int, LoadedVersion], default: int, labels: dict[str, int]) -> None:
        self.versions = versions
        self.default = versions[default]
        self.labels = {label: str(version) for label, version in labels.items() if version in versions}
        self._by_name = {str(number): version for number, version in versions.items()}
        self._by_name |= {label: self._by_name[number] for label, number in self.labels.items()}

    def find(self, name: str | None) -> LoadedVersion:
        """Returns a version by number (with or without leading zeros) or label, or for None the default version.

        Raises KeyError.
        """
        if name is None:
            return self.default
        version = self._by_name.get(name)
        if version is None and name.isdigit():
            version = self._by_name.get(name.lstrip("0"))
        if version is None:
            raise KeyError(name)
        return version

    def newest_first(self) -> list[LoadedVersion]:
        return [self.versions[number] for number in sorted(self.versions, reverse=True)]


class Registry:
    """All loaded models. A lookup is a dictionary access. Versions are loaded in another thread."""

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        metrics: Metrics,
        warm_up_timeout_s: float = WARM_UP_TIMEOUT_S,
        worker_id: int = 0,
        engine_choices: EngineChoices | None = None,
    ) -> None:
        """`worker_id` decides which of several GPUs is used."""
        self._repository = repository
        self._settings = settings
        self._worker_id = worker_id
        self._metrics = metrics
        self._models: dict[str, LoadedModel] = {}
        self._required_models: set[str] | None = None
        self._has_tried_all = False
        self._root = ModelRoot(repository)
        self.failures = LoadFailures()
        self._closer = VersionCloser(metrics)
        self._reconcile_lock = asyncio.Lock()
        self._loader = VersionLoader(
            repository, settings, metrics, self.failures, warm_up_timeout_s, worker_id, engine_choices
        )

    def get(self, model: str, version: str | None = None) -> LoadedVersion:
        """Returns a version by number or label, or the default version.

        Raises UnknownModel, UnknownVersion, NotReady or BrokenModel.
        """
        try:
            return self._models[model].find(version)
        except KeyError:
            raise self._lookup_error(model, version) from None

    def model(self, name: str) -> LoadedModel:
        """Returns a loaded model. Raises UnknownModel, NotReady or BrokenModel."""
        try:
            return self._models[name]
        except KeyError:
            raise self._lookup_error(name) from None

    def models(self) -> list[LoadedModel]:
        """Returns all loaded models, sorted by name. Thread-safe."""
        return [model for _, model in sorted(self._models.copy().items())]

    def versions_by_model(self) -> list[list[LoadedVersion]]:
        """Returns the loaded versions of each model, newest first. Models are sorted by name."""
        return [model.newest_first() for model in self.models()]

    def engine_rows(self) -> list[tuple[str, str, str, str, str]]:
        """Returns model, version, engine, precision and hint of each loaded version. All workers have the same."""
        return [
            (loaded.model, loaded.version, loaded.candidate.engine, loaded.candidate.precision, loaded.candidate.hint)
            for versions in self.versions_by_model()
            for loaded in versions
        ]

    def index(self) -> list[RepositoryEntry]:
        """Returns an entry per version on disk. Blocks, because it reads the disk. Raises OSError if there is no
        root."""
        entries = []
        for model in self._repository.models():
            loaded = self._loaded_versions(model)
            for version in self._version_numbers(model):
                failure = self._failure_reason(model, version)
                reason = failure if version in loaded else self._unloaded_reason(model, version, failure)
                entries.append(RepositoryEntry(model, str(version), version in loaded, reason))
        return entries

    @property
    def loading_version(self) -> str:
        """The version that is being loaded, as `<model>/<version>`, even after `close`; empty if there is none."""
        return self._loader.loading_version

    def is_loading(self) -> bool:
        """Whether the models found at the start are still being loaded."""
        return self._required_models is None

    @property
    def has_tried_all(self) -> bool:
        """Whether the first attempt to load each model has ended, successfully or not."""
        return self._has_tried_all

    def is_unavailable(self) -> bool:
        """Whether other workers should get the requests, because this worker is still loading or its GPU has failed."""
        return self.is_loading() or bool(self._models_with_lost_gpu())

    def not_ready_reasons(self) -> dict[str, str]:
        """Returns the reasons why the service is not ready, by model name or under 'service'; empty if it is ready.

        Only the models that existed at the start are required: a broken new model does not make a running service
        unready.
        """
        if self._required_models is None:
            now = self.loading_version and f", now {self.loading_version}"
            return {"service": self._root.error or f"Models are loading{now}."}
        if not self._required_models and not self._models:
            return {"service": f"There is no model in {self._repository.root}. Add a model as <name>/<version>/."}
        missing = self._required_models - self._models.keys()
        reasons = {model: self.failures.reason_for(model) for model in missing}
        return reasons | self.hung_models() | self._models_with_lost_gpu()

    @property
    def has_loaded(self) -> bool:
        """Whether the models found at the start have been loaded, or have failed."""
        return self._required_models is not None

    def hung_models(self) -> dict[str, str]:
        """Returns a reason for each model with a batch that has run for longer than the request timeout."""
        return self._hung_for(1)

    def stuck_models(self) -> dict[str, str]:
        """Returns a reason for each model that only a new process can recover.

        These are models with a batch that has run for `max_run_timeouts` request timeouts, and models whose GPU has
        failed. Loading and warm-up do not count, because they run no batch.
        """
        timeouts = self._settings.max_run_timeouts
        return (self._hung_for(timeouts, MIN_STUCK_S) if timeouts else {}) | self._models_with_lost_gpu()

    def _models_with_lost_gpu(self) -> dict[str, str]:
        return {
            name: f"{loaded.session.device} has failed: {loaded.session.lost_gpu}."
            for name, model in self._models.items()
            for loaded in model.versions.values()
            if loaded.session.lost_gpu
        }

    def _hung_for(self, timeouts: int, min_s: float = 0.0) -> dict[str, str]:
        limit_s = max(min_s, timeouts * self._settings.request_timeout_ms / 1000)
        return {
            name: f"Version {loaded.version} has been running one batch for more than {limit_s:g} s, which is longer "
            "than any request waits."
            for name in self._models
            if (loaded := self._hung_version(name, timeouts, limit_s)) is not None
        }

    def _hung_version(self, name: str, timeouts: int = 1, limit_s: float | None = None) -> LoadedVersion | None:
        """Returns a version with a batch that has run for `limit_s`, by default one request timeout; or None."""
        timeout_s = self._settings.request_timeout_ms / 1000 if limit_s is None else limit_s / timeouts
        versions = self._loaded_versions(name).values()
        hung = [loaded for loaded in versions if loaded.batcher.elapsed_timeouts(timeout_s) > timeouts]
        return hung[-1] if hung else None

    async def reconcile(self, desired: DesiredState, *, retry: bool = False) -> None:
        """Loads and unloads versions until exactly those versions on disk that `desired` selects are loaded.

        A version that failed is tried again if its files have changed, or with `retry`. A loaded version is loaded
        again if its content has changed. If the root cannot be read, nothing changes.
        """
        async with self._reconcile_lock:
            if retry:
                self.failures.allow_retries()
            try:
                on_disk = await self._read_root()
                if on_disk is not None:
                    specs = {name: desired.spec_of(name) for name in on_disk}
                    await self._load_only({name: spec for name, spec in specs.items() if spec.loaded}, retry=retry)
            finally:
                self._has_tried_all = True

    async def load_only(self, model: str, spec: ModelSpec) -> None:
        """Loads the versions of `model` that `spec` selects, and unloads all other models."""
        async with self._reconcile_lock:
            on_disk = await self._read_root()
            if on_disk is not None:
                await self._load_only({name: spec for name in on_disk if name == model})

    async def _read_root(self) -> set[str] | None:
        loaded = [version.folder.path for model in self._models.values() for version in model.versions.values()]
        return await asyncio.to_thread(self._root.models, loaded)

    async def _load_only(self, specs: dict[str, ModelSpec], *, retry: bool = False) -> None:
        """Loads the versions of the models in `specs` as specified, and unloads all other models."""
        may_be_copied = not (retry or self.is_loading())  # versions that existed at the start are assumed complete
        for name in sorted(specs):
            await self._reconcile_model(name, specs[name], may_be_copied=may_be_copied)
        if self._required_models is None:
            self._required_models = set(specs)
        for name in self._models.keys() - specs.keys():
            self._unload(name)
        self.failures.keep_models(set(specs))
        self._required_models &= specs.keys()

    async def close(self) -> None:
        """Unloads all versions when their queued requests are done. Does not wait for a version that still loads."""
        for name in list(self._models):
            self._unload(name)
        await self._closer.wait_at_end()

    def _version_numbers(self, name: str) -> list[int]:
        """Returns the versions on disk, or the loaded versions if the folder cannot be read."""
        try:
            return self._repository.versions(name)
        except OSError:
            return sorted(self._loaded_versions(name))

    def _loaded_versions(self, name: str) -> dict[int, LoadedVersion]:
        return self._models[name].versions if name in self._models else {}

    async def _reconcile_model(self, name: str, spec: ModelSpec, *, may_be_copied: bool) -> None:
        self._metrics.broken_versions.labels(name).set_function(partial(self.failures.confirmed_count, name))
        self._metrics.hung_models.labels(name).set_function(lambda: float(self._hung_version(name) is not None))
        try:
            numbers = await asyncio.to_thread(self._repository.versions, name)
        except OSError as error:
            reason = f"Its folder cannot be read: {error.strerror}."
            if self.failures.record_unreadable_folder(name, reason):
                logs.event(logging.ERROR, "model cannot be read", model=name, reason=reason)
            return  # its loaded versions stay
        loaded = self._loaded_versions(name)
        self.failures.keep_versions(name, numbers)
        kept: dict[int, LoadedVersion] = {}

        async def keep_up_to_date(number: int) -> None:
            version = await self._loader.up_to_date(name, number, spec, loaded.get(number), may_be_copied=may_be_copied)
            if version is not None:
                kept[number] = version

        for number in spec.select_versions(numbers):
            if spec.is_satisfied_by(len(kept), self._settings.latest_versions):
                break
            await keep_up_to_date(number)
        if kept:
            default = max(kept)
            for number in set(spec.labels.values()) & set(numbers) - kept.keys():
                await keep_up_to_date(number)
            self._replace(name, LoadedModel(kept, default, spec.labels))
        elif not numbers and not self._root.is_replaced():
            self._unload(name)

    def _replace(self, name: str, model: LoadedModel) -> None:
        previous = self._loaded_versions(name)
        self._models[name] = model
        self._metrics.loaded_versions.labels(name).set(len(model.versions))
        self._metrics.worker_device.labels(self._worker_id, model.default.session.device).set(1)
        self._metrics.bind_queue_gauges(  # by name, because references to the versions would keep them in memory
            name,
            lambda: sum(version.batcher.queued_images for version in self._loaded_versions(name).values()),
            lambda: sum(version.batcher.running_batches for version in self._loaded_versions(name).values()),
        )
        for number, version in sorted(model.versions.items()):
            if previous.get(number) is not version:
                _log_loaded(version)
        for number, version in previous.items():
            if model.versions.get(number) is not version:
                self._close_later(version)

    def _unload(self, name: str) -> None:
        model = self._models.pop(name, None)
        if model is not None:
            self._metrics.loaded_versions.labels(name).set(0)
            for version in model.versions.values():
                self._close_later(version)

    def _close_later(self, loaded: LoadedVersion) -> None:
        """Closes a version that no new request can find, as soon as its last request is done."""
        if self._loaded_versions(loaded.model).get(int(loaded.version)) is None:
            self._loader.forget(loaded.model, int(loaded.version))
        self._closer.close_later(loaded)

    def _failure_reason(self, model: str, version: int) -> str:
        """Returns the reason why the version cannot be loaded, even if it is not selected and was not tried; empty if
        it can be loaded."""
        failure = self.failures.reason_for_version(model, version)
        return failure or self._repository.duplicate_reason(model, version)

    def _unloaded_reason(self, model: str, version: int, failure: str) -> str:
        return "loading" if self.loading_version == f"{model}/{version}" else failure or "unloaded"

    def _lookup_error(self, model: str, version: str | None = None) -> ConvoyError:
        if model in self._models:
            return UnknownVersion(f"Model '{model}' has no loaded version or label '{version}'.")
        if self._required_models is None:
            return NotReady("Models are loading.")
        if self.failures.reason_for(model):
            return BrokenModel(f"None of the versions of model '{model}' could be loaded.")
        return UnknownModel.suggesting(model, self._models)


def _log_loaded(loaded: LoadedVersion) -> None:
    logs.event(
        logging.INFO,
        "version is loaded",
        model=loaded.model,
        version=loaded.version,
        digest=loaded.digest,
        engine=loaded.candidate.engine,
        precision=loaded.candidate.precision,
        hint=loaded.candidate.hint,
        engine_ms=loaded.engine_choice.times_ms,
        provider=loaded.session.provider,
        device=loaded.session.device,
        nodes=loaded.session.nodes,
        threads=loaded.threads,
        instances=loaded.instances,
        max_batch_size=loaded.max_batch_size,
        batch_ms=loaded.batch_ms,
    )
    if CPU_PROVIDER in loaded.session.nodes:
        event = "part of a graph runs on the CPU"
        logs.event(
            logging.WARNING, event, model=loaded.model, version=loaded.version, nodes=loaded.session.nodes[CPU_PROVIDER]
        )
