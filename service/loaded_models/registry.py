"""What is loaded: which models, which versions, which one answers by default, and under which labels.

`reconcile` makes it what is wanted and on disk: it loads the new before it lets the old go, beside the traffic.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from service import malloc
from service.errors import NotReady, UnknownModel, UnknownVersion
from service.loaded_models import loaded_version
from service.loaded_models.load_failures import LoadFailures
from service.loaded_models.loaded_version import LoadedVersion
from service.model_store.desired_state import DesiredState, ModelSpec
from service.model_store.repository import Repository
from service.observability import logs
from service.observability.metrics import Metrics
from service.settings import Settings


class IndexEntry(NamedTuple):
    """One version on disk, and whether it is served; if not, why."""

    model: str
    version: str
    ready: bool
    reason: str


class Model:
    """What is loaded of one model. `by_name` finds a version by its number or a label."""

    def __init__(self, versions: dict[int, LoadedVersion], default: int, labels: dict[str, int]) -> None:
        self.versions = versions
        self.default = versions[default]
        self.labels = {label: str(version) for label, version in labels.items() if version in versions}
        self.by_name = {str(number): one for number, one in versions.items()}
        self.by_name |= {label: self.by_name[number] for label, number in self.labels.items()}

    def newest_first(self) -> list[LoadedVersion]:
        return [self.versions[number] for number in sorted(self.versions, reverse=True)]


class Registry:
    """All loaded models. Looking up is a dictionary access; loading happens in other threads."""

    def __init__(self, repository: Repository, settings: Settings, metrics: Metrics) -> None:
        self._repository = repository
        self._settings = settings
        self._metrics = metrics
        self._models: dict[str, Model] = {}
        self._required: set[str] | None = None
        self._root: tuple[int, int] | None = None
        self._root_problem = ""
        self.failures = LoadFailures()
        self._closing: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, "load")  # the event loop's end would wait for its own
        self.being_loaded = ""
        """The version that is being loaded now, as `<model>/<version>`, past `close` too; empty where none is."""

    def get(self, model: str, version: str | None = None) -> LoadedVersion:
        """The version, by number or label, that answers. Raises UnknownModel, UnknownVersion, or NotReady."""
        try:
            found = self._models[model]
            return found.default if version is None else found.by_name[version]
        except KeyError:
            raise self._why_not(model, version) from None

    def model(self, name: str) -> Model:
        """All that is loaded of one model. Raises UnknownModel or NotReady."""
        try:
            return self._models[name]
        except KeyError:
            raise self._why_not(name) from None

    def models(self) -> list[Model]:
        """All that is loaded, by name; from any thread, since models come and go."""
        return [model for _, model in sorted(self._models.copy().items())]

    def all(self) -> list[list[LoadedVersion]]:
        """Per model, by name: its loaded versions, newest first."""
        return [model.newest_first() for model in self.models()]

    def index(self) -> list[IndexEntry]:
        """Every version on disk. Reads the disk: not for the event loop's thread. Raises OSError without a root."""
        entries = []
        for model in self._repository.models():
            loaded = self._loaded(model)
            for version in self._numbers(model):
                reason = "" if version in loaded else self._why_unloaded(model, version)
                entries.append(IndexEntry(model, str(version), version in loaded, reason))
        return entries

    def is_loading(self) -> bool:
        """Whether what was there at the start is still being loaded, so that nothing can be answered yet."""
        return self._required is None

    def not_ready_because(self) -> dict[str, str]:
        """Empty when ready; otherwise what is missing, by model name, or under 'service'.

        Only what was there at the start is waited for: a broken new model does not fail a service at work.
        """
        if self._required is None:
            now = self.being_loaded and f", now {self.being_loaded}"
            return {"service": self._root_problem or f"Models are loading{now}."}
        if not self._required and not self._models:
            return {"service": f"There is no model in {self._repository.root}; put one there: <name>/<version>/."}
        return {model: self.failures.of(model) for model in self._required - self._models.keys()} | self.hanging()

    def hanging(self) -> dict[str, str]:
        """Models with a batch that takes longer than any request waits, so that it answers nobody, and why so."""
        limit_s = self._settings.request_timeout_ms / 1000
        return {
            name: f"Version {one.version} has been at one batch for more than {limit_s:g} s; no request waits longer."
            for name, model in self._models.items()
            for one in model.versions.values()
            if one.batcher.longest_run_s() > limit_s
        }

    async def reconcile(self, wanted: DesiredState, only: str | None = None, retry: bool = False) -> None:
        """Loads and unloads until what is wanted and on disk is served, of all models or of one.

        A version that failed is tried again when its files have changed, or with `retry`. A root that cannot be read
        changes nothing.
        """
        async with self._changing:
            if retry:
                self.failures.retry()
            found = await asyncio.to_thread(self._on_disk)
            if found is None:
                return
            here = {name for name in found if wanted.spec_of(name).loaded and only in (None, name)}
            for name in sorted(here):
                await self._renew(name, wanted.spec_of(name))
            if self._required is None:
                self._required = here
            for name in self._models.keys() - here:
                self._unload(name)
            self.failures.keep_models(here)
            self._required &= here

    async def close(self) -> None:
        """Answers everything queued, then unloads. What is being loaded is not waited for."""
        for name in list(self._models):
            self._unload(name)
        await asyncio.gather(*self._closing)

    def _on_disk(self) -> set[str] | None:
        """Names of the models; None when the root cannot be read, or is gone while there are models at work."""
        try:
            self._root = self._repository.root_inode()
            found = set(self._repository.models())
            if self._models and self._is_another_root():  # it may have gone in the midst of being read
                self._note_root(f"{self._repository.root} is gone; what is loaded stays.")
                return None
        except OSError as error:
            self._note_root(f"{self._repository.root} cannot be read: {error.strerror}.")
            return None
        self._note_root("")
        return found

    def _is_another_root(self) -> bool:
        """Whether the root is not the one that was read last, or gone."""
        now = self._repository.root_inode()
        return now is None or now != self._root

    def _note_root(self, problem: str) -> None:
        if problem and problem != self._root_problem:
            logs.event(logging.ERROR, "models cannot be read", reason=problem)
        elif self._root_problem and not problem:
            logs.event(logging.INFO, "models can be read again")
        self._root_problem = problem

    def _numbers(self, name: str) -> list[int]:
        """Versions on disk, or those that are loaded where the folder cannot be read."""
        try:
            return self._repository.versions(name)
        except OSError:
            return sorted(self._loaded(name))

    def _loaded(self, name: str) -> dict[int, LoadedVersion]:
        return self._models[name].versions if name in self._models else {}

    async def _renew(self, name: str, wish: ModelSpec) -> None:
        try:
            numbers = await asyncio.to_thread(self._repository.versions, name)
        except OSError as error:
            why = f"Its folder cannot be read: {error.strerror}."
            if self.failures.note_folder(name, why):
                logs.event(logging.ERROR, "model cannot be read", model=name, reason=why)
            return  # what is loaded of it stays
        loaded = self._loaded(name)
        self.failures.keep_versions(name, numbers)
        kept: dict[int, LoadedVersion] = {}
        for number in wish.select_versions(numbers):
            if wish.is_satisfied_by(len(kept), self._settings.latest_versions):
                break
            await self._keep(name, number, wish, loaded, kept)
        if kept:
            default = max(kept)
            for number in set(wish.labels.values()) & set(numbers) - kept.keys():
                await self._keep(name, number, wish, loaded, kept)
            self._swap(name, Model(kept, default, wish.labels))
        elif not numbers and not self._is_another_root():
            self._unload(name)

    async def _keep(
        self, name: str, number: int, wish: ModelSpec, loaded: dict[int, LoadedVersion], kept: dict[int, LoadedVersion]
    ) -> None:
        """Puts the version among the kept ones: as it is, or freshly loaded; a broken one is noted instead."""
        fingerprint = await asyncio.to_thread(self._repository.fingerprint, name, number)
        if number in loaded:
            kept[number] = loaded[number]
            self.failures.clear(name, number)
        elif not self.failures.would_fail_again(name, number, fingerprint):
            try:
                loop = asyncio.get_running_loop()
                kept[number] = await loop.run_in_executor(self._loader, self._open, name, number, wish)
                self.failures.clear(name, number)
            except Exception as error:  # whatever it does to those who load it, the others have their turn
                why = str(error) or type(error).__name__
                self.failures.note(name, number, fingerprint, why)
                self._metrics.broken_versions.labels(name).inc()
                logs.event(logging.ERROR, "version is broken", model=name, version=number, reason=why)

    def _open(self, name: str, number: int, wish: ModelSpec) -> LoadedVersion:
        self.being_loaded = f"{name}/{number}"
        try:
            return loaded_version.load(self._repository.open(name, number), wish, self._settings, self._metrics)
        finally:
            self.being_loaded = ""

    def _swap(self, name: str, model: Model) -> None:
        before = self._loaded(name)
        self._models[name] = model
        self._metrics.loaded_versions.labels(name).set(len(model.versions))
        self._metrics.bind_queue_gauges(  # by name: what they hold would never go
            name,
            lambda: sum(one.batcher.queued_images for one in self._loaded(name).values()),
            lambda: sum(one.batcher.running_batches for one in self._loaded(name).values()),
        )
        for number in sorted(model.versions.keys() - before.keys()):
            _log_loaded(model.versions[number])
        for number in before.keys() - model.versions.keys():
            self._let_go(before[number])

    def _unload(self, name: str) -> None:
        model = self._models.pop(name, None)
        if model is not None:
            self._metrics.loaded_versions.labels(name).set(0)
            for one in model.versions.values():
                self._let_go(one)

    def _let_go(self, one: LoadedVersion) -> None:
        """No new request finds it any more; it ends when its last one is answered."""
        logs.event(logging.INFO, "version is unloaded", model=one.model, version=one.version)
        closing = asyncio.get_running_loop().create_task(_end(one))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _why_unloaded(self, model: str, version: int) -> str:
        if self.being_loaded == f"{model}/{version}":
            return "loading"
        return self.failures.of_version(model, version) or "unloaded"

    def _why_not(self, model: str, version: str | None = None) -> UnknownModel | UnknownVersion | NotReady:
        if model in self._models:
            return UnknownVersion(f"Model '{model}' has no version or label '{version}' loaded.")
        if self._required is None:
            return NotReady("Models are loading.")
        if problem := self.failures.of(model):
            return NotReady(f"Model '{model}' is broken: {problem}")
        return UnknownModel(f"There is no model '{model}'.")


async def _end(one: LoadedVersion) -> None:
    await one.close()
    del one  # the last that held it
    await asyncio.to_thread(malloc.trim)


def _log_loaded(one: LoadedVersion) -> None:
    logs.event(
        logging.INFO,
        "version is loaded",
        model=one.model,
        version=one.version,
        provider=one.session.provider,
        threads=one.threads,
        instances=one.instances,
        max_batch_size=one.max_batch_size,
        batch_ms=one.batch_ms,
    )
