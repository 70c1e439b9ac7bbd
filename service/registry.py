"""What is loaded: which models, which versions, which one answers by default. Loads in a thread, beside the traffic."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from service import logs
from service.batcher import Batcher
from service.cores import usable_cores
from service.errors import BrokenVersion, NotReady, UnknownModel, UnknownVersion
from service.manifest import Manifest, Variant
from service.metrics import Metrics
from service.repository import Repository, VersionFolder
from service.session import Session
from service.settings import Settings
from service.statistics import Statistics


@dataclass(frozen=True)
class Served:
    """One loaded version, warm, behind its batcher."""

    folder: VersionFolder
    variant: Variant
    session: Session
    batcher: Batcher
    executor: ThreadPoolExecutor
    statistics: Statistics

    @property
    def model(self) -> str:
        return self.folder.model

    @property
    def version(self) -> str:
        return str(self.folder.version)

    @property
    def manifest(self) -> Manifest:
        return self.folder.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        return self.folder.labels

    async def close(self) -> None:
        """Answers what is queued, then lets the graph go."""
        await self.batcher.drain()
        self.executor.shutdown(wait=False)


class IndexEntry(NamedTuple):
    """One version on disk, and whether it is served; if not, why."""

    model: str
    version: str
    ready: bool
    reason: str


class Registry:
    """All loaded versions by name and number. Looking up is a dictionary access; loading happens elsewhere."""

    def __init__(self, repository: Repository, settings: Settings, metrics: Metrics) -> None:
        self._repository = repository
        self._settings = settings
        self._metrics = metrics
        self._served: dict[str, dict[str, Served]] = {}
        self._default: dict[str, Served] = {}
        self._wanted: set[str] = set()
        self._problems: dict[str, dict[str, str]] = {}
        self._loaded = False
        self._changing = asyncio.Lock()

    async def load(self, only: str | None = None, version: str | None = None) -> None:
        """Loads and warms the newest versions of every model, or only that model, or only that version of it.

        A broken version is logged and passed over; `not_ready_because` tells of it when nothing else is left.
        """
        found = set(await asyncio.to_thread(self._repository.models))
        self._wanted = found if only is None else found & {only}
        for model in sorted(self._wanted):
            await self._renew(model, version)
        self._loaded = True

    async def load_model(self, model: str) -> None:
        """Makes the newest versions on disk the loaded ones, without a moment in which none is.

        Raises UnknownModel, or BrokenVersion when there is no version that can be loaded.
        """
        if not await asyncio.to_thread(self._repository.versions, model):
            raise UnknownModel(f"There is no model '{model}' in {self._repository.root}.")
        self._wanted.add(model)
        await self._renew(model)
        if model not in self._default:
            raise BrokenVersion(f"No version of '{model}' can be loaded: {self._why_broken(model)}")

    async def unload_model(self, model: str) -> None:
        """Takes the model out of service, once it has answered what it accepted. Raises UnknownModel."""
        if model not in self._served:
            raise UnknownModel(f"Model '{model}' is not loaded.")
        async with self._changing:
            self._wanted.discard(model)
            self._default.pop(model, None)
            await asyncio.gather(*(served.close() for served in self._served.pop(model, {}).values()))
            self._metrics.versions.labels(model).set(0)

    def get(self, model: str, version: str | None = None) -> Served:
        """The version that answers. Raises UnknownModel, UnknownVersion, or NotReady while it loads."""
        try:
            return self._default[model] if version is None else self._served[model][version]
        except KeyError:
            raise self._why_not(model, version) from None

    def all(self) -> list[list[Served]]:
        """Per model, by name: its loaded versions, newest first."""
        return [sorted(v.values(), key=lambda s: -s.folder.version) for _, v in sorted(self._served.items())]

    def index(self) -> list[IndexEntry]:
        """Every version on disk. Reads the disk: not for the event loop's thread."""
        entries = []
        for model in self._repository.models():
            for version in map(str, self._repository.versions(model)):
                ready = version in self._served.get(model, {})
                reason = "" if ready else self._problems.get(model, {}).get(version, "unloaded")
                entries.append(IndexEntry(model, version, ready, reason))
        return entries

    def not_ready_because(self) -> dict[str, str]:
        """Empty when ready; otherwise what is missing, by model name, or under 'service'."""
        if not self._loaded:
            return {"service": "Models are loading."}
        if not self._wanted:
            return {"service": f"There is no model in {self._repository.root}; put one there: <name>/<version>/."}
        return {model: self._why_broken(model) for model in self._wanted - self._default.keys()}

    async def close(self) -> None:
        """Answers everything queued, then unloads."""
        await asyncio.gather(*(served.close() for versions in self._served.values() for served in versions.values()))

    async def _renew(self, model: str, only: str | None = None) -> None:
        """Loads what should be loaded and is not, makes the highest version the default, then lets the others go."""
        async with self._changing:
            kept: dict[str, Served] = {}
            problems: dict[str, str] = {}
            loaded = self._served.get(model, {})
            for version in reversed(await asyncio.to_thread(self._repository.versions, model)):
                if len(kept) == self._settings.latest_versions:
                    break
                name = str(version)
                if only is not None and name != only:
                    continue
                try:
                    same = loaded.get(name)
                    kept[name] = same if same is not None else await asyncio.to_thread(self._open, model, version)
                except (BrokenVersion, OSError) as error:
                    problems[name] = str(error)
                    logs.event(logging.ERROR, "version is broken", model=model, version=name, reason=str(error))
            self._problems[model] = problems
            if kept:
                self._swap(model, kept)
                await asyncio.gather(*(loaded[name].close() for name in loaded.keys() - kept.keys()))

    def _swap(self, model: str, versions: dict[str, Served]) -> None:
        before = self._served.get(model, {})
        self._served[model] = versions
        self._default[model] = max(versions.values(), key=lambda served: served.folder.version)
        self._metrics.versions.labels(model).set(len(versions))
        self._metrics.watch(
            model,
            lambda: sum(served.batcher.queued_images for served in versions.values()),
            lambda: sum(served.batcher.running for served in versions.values()),
        )
        for name in versions.keys() - before.keys():
            provider = versions[name].session.provider
            logs.event(
                logging.INFO, "version is loaded", model=model, version=name, provider=provider, threads=self._threads()
            )

    def _open(self, model: str, version: int) -> Served:
        folder = self._repository.open(model, version)
        variant = folder.manifest.variant("float32")
        if variant is None:
            raise BrokenVersion(f"{folder.path} has no float32 graph.")
        session = Session(folder.graph(variant), folder.manifest.input, folder.manifest.classes, self._threads())
        session.warm_up([1, self._settings.max_batch_size])
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"run-{model}-{version}")
        statistics = Statistics()
        batcher = self._batcher(model, session, executor, statistics)
        return Served(folder, variant, session, batcher, executor, statistics)

    def _batcher(self, model: str, session: Session, executor: ThreadPoolExecutor, statistics: Statistics) -> Batcher:
        images, seconds = self._metrics.batch_images.labels(model), self._metrics.compute_s.labels(model)

        def on_batch(size: int, compute_s: float) -> None:
            images.observe(size)
            seconds.observe(compute_s)
            statistics.add_batch(size, compute_s)

        return Batcher(
            session.run,
            executor,
            max_batch_size=self._settings.max_batch_size,
            max_queue_images=self._settings.max_queue_images,
            max_delay_ms=self._settings.max_delay_ms,
            on_batch=on_batch,
        )

    def _threads(self) -> int:
        return self._settings.threads or usable_cores()

    def _why_broken(self, model: str) -> str:
        return " ".join(self._problems.get(model, {}).values()) or "It is loading."

    def _why_not(self, model: str, version: str | None) -> UnknownModel | UnknownVersion | NotReady:
        if model in self._served:
            return UnknownVersion(f"Model '{model}' has no version '{version}' loaded.")
        if not self._loaded:
            return NotReady("Models are loading.")
        if model not in self._wanted:
            return UnknownModel(f"There is no model '{model}'.")
        if self._problems.get(model):
            return NotReady(f"Model '{model}' is broken: {self._why_broken(model)}")
        return UnknownVersion(f"Model '{model}' has no version '{version}'.")
