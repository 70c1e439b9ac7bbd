"""What is loaded: which models, which versions, which one answers by default. Loads in a thread, beside the traffic."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service import logs
from service.batcher import Batcher
from service.cores import usable_cores
from service.errors import BrokenVersion, NotReady, UnknownModel, UnknownVersion
from service.manifest import Manifest, Variant
from service.metrics import Metrics
from service.repository import Repository, VersionFolder
from service.session import Session
from service.settings import Settings


@dataclass(frozen=True)
class Served:
    """One loaded version, warm, behind its batcher."""

    folder: VersionFolder
    variant: Variant
    session: Session
    batcher: Batcher
    executor: ThreadPoolExecutor

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


class Registry:
    """All loaded versions by name and number. Looking up is a dictionary access; loading happens elsewhere."""

    def __init__(self, repository: Repository, settings: Settings, metrics: Metrics) -> None:
        self._repository = repository
        self._settings = settings
        self._metrics = metrics
        self._served: dict[str, dict[str, Served]] = {}
        self._default: dict[str, Served] = {}
        self._wanted: set[str] = set()
        self._problems: dict[str, str] = {}
        self._loaded = False

    async def load(self, only: str | None = None, version: str | None = None) -> None:
        """Loads and warms the newest versions of every model, or only that model, or only that version of it.

        A broken version is logged and passed over; `not_ready_because` tells of it when nothing else is left.
        """
        found = set(await asyncio.to_thread(self._repository.models))
        self._wanted = found if only is None else found & {only}
        for model in sorted(self._wanted):
            await self._load(model, version)
        self._loaded = True

    def get(self, model: str, version: str | None = None) -> Served:
        """The version that answers. Raises UnknownModel, UnknownVersion, or NotReady while it loads."""
        try:
            return self._default[model] if version is None else self._served[model][version]
        except KeyError:
            raise self._why_not(model, version) from None

    def all(self) -> list[list[Served]]:
        """Per model, by name: its loaded versions, newest first."""
        return [sorted(v.values(), key=lambda s: -s.folder.version) for _, v in sorted(self._served.items())]

    def not_ready_because(self) -> dict[str, str]:
        """Empty when ready; otherwise what is missing, by model name, or under 'service'."""
        waiting = dict.fromkeys(self._wanted - self._default.keys(), "It is loading.")
        if not self._loaded:
            return {"service": "Models are loading."} | waiting
        if not self._wanted:
            return {"service": f"There is no model in {self._repository.root}; put one there: <name>/<version>/."}
        return waiting | {model: why for model, why in self._problems.items() if model not in self._default}

    async def close(self) -> None:
        """Answers everything queued, then unloads."""
        await asyncio.gather(*(served.close() for versions in self._served.values() for served in versions.values()))

    async def _load(self, model: str, only: str | None) -> None:
        for version in reversed(await asyncio.to_thread(self._repository.versions, model)):
            if only is not None and str(version) != only:
                continue
            try:
                served = await asyncio.to_thread(self._open, model, version)
            except (BrokenVersion, OSError) as error:
                self._problems[model] = str(error)
                logs.event(logging.ERROR, "version is broken", model=model, version=version, reason=str(error))
                continue
            self._add(served)
            if len(self._served[model]) == self._settings.latest_versions:
                return

    def _add(self, served: Served) -> None:
        versions = self._served.setdefault(served.model, {})
        versions[served.version] = served
        self._default[served.model] = max(versions.values(), key=lambda s: s.folder.version)
        self._metrics.versions.labels(served.model).set(len(versions))
        self._metrics.watch(
            served.model,
            lambda: sum(s.batcher.queued_images for s in versions.values()),
            lambda: sum(s.batcher.running for s in versions.values()),
        )
        logs.event(
            logging.INFO,
            "version is loaded",
            model=served.model,
            version=served.version,
            provider=served.session.provider,
            threads=self._threads(),
        )

    def _open(self, model: str, version: int) -> Served:
        folder = self._repository.open(model, version)
        variant = folder.manifest.variant("float32")
        if variant is None:
            raise BrokenVersion(f"{folder.path} has no float32 graph.")
        session = Session(folder.graph(variant), folder.manifest.input, folder.manifest.classes, self._threads())
        session.warm_up([1, self._settings.max_batch_size])
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"run-{model}-{version}")
        return Served(folder, variant, session, self._batcher(model, session, executor), executor)

    def _batcher(self, model: str, session: Session, executor: ThreadPoolExecutor) -> Batcher:
        images, seconds = self._metrics.batch_images.labels(model), self._metrics.compute_s.labels(model)

        def on_batch(size: int, compute_s: float) -> None:
            images.observe(size)
            seconds.observe(compute_s)

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

    def _why_not(self, model: str, version: str | None) -> UnknownModel | UnknownVersion | NotReady:
        if model in self._served:
            return UnknownVersion(f"Model '{model}' has no version '{version}' loaded.")
        if not self._loaded:
            return NotReady("Models are loading.")
        if model not in self._wanted:
            return UnknownModel(f"There is no model '{model}'.")
        if model in self._problems:
            return NotReady(f"Model '{model}' is broken: {self._problems[model]}")
        return UnknownVersion(f"Model '{model}' has no version '{version}'.")
