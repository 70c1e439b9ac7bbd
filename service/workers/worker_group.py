"""All workers as one: what is wanted is written once and carried out by each; what was counted is added up."""

import asyncio
import time

from service.errors import BrokenVersion, NotEverywhere, NotReady, UnknownModel
from service.loaded_models.registry import IndexEntry, Registry
from service.model_store.desired_state import StateFile
from service.model_store.mirror import BucketMirror
from service.model_store.repository import Repository
from service.observability.metrics import Metrics, version_metrics
from service.observability.multiprocess import StatsByVersion, metrics_to_families, version_key
from service.workers.worker_status import WorkerStatusStore, WorkerTotals

ASK_EVERY_S = 0.02
REFRESH_S = 1.0


class WorkerGroup:
    """The workers' common side of the registry. With one worker the same code has nobody else to ask."""

    def __init__(
        self,
        state: StateFile,
        status_store: WorkerStatusStore,
        registry: Registry,
        repository: Repository,
        metrics: Metrics,
        timeout_s: float,
        mirror: BucketMirror | None = None,
    ) -> None:
        """`timeout_s` is what a change may take until all have carried it out; `mirror` fetches from a bucket."""
        self._state = state
        self._status_store = status_store
        self._registry = registry
        self._repository = repository
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._mirror = mirror

    async def load(self, model: str) -> None:
        """Has every worker load the model's wanted versions, those that failed before included.

        Raises UnknownModel, BrokenVersion, NotEverywhere, BadState.
        """
        try:
            found = await asyncio.to_thread(self._repository.versions, model)
        except OSError as error:
            raise BrokenVersion(f"'{model}' cannot be loaded: its folder cannot be read: {error.strerror}.") from error
        if not found:
            raise UnknownModel(f"There is no model '{model}' in {self._repository.root}.")
        await self._change(model, loaded=True)
        try:
            self._registry.get(model)
        except (UnknownModel, NotReady):
            raise BrokenVersion(f"'{model}' cannot be loaded: {self._registry.failures.of(model)}") from None
        if others := self._others_problems(model):
            raise NotEverywhere(f"'{model}' cannot be loaded by {', '.join(others)}.")

    async def unload(self, model: str) -> None:
        """Has every worker take the model out of service. Raises UnknownModel, NotEverywhere, BadState."""
        self._registry.get(model)
        await self._change(model, loaded=False)

    def not_ready_because(self) -> dict[str, str]:
        """Empty when every worker is ready; otherwise what is missing, here or in another one."""
        reasons = self._reasons()
        if self._status_store.workers == 1:
            return reasons
        for slot, notice in enumerate(self._status_store.notices()):
            if notice is None:
                reasons[f"worker {slot}"] = "It is starting, or does not answer."
            elif notice.reasons:
                reasons[f"worker {slot}"] = " ".join(f"{what}: {why}" for what, why in notice.reasons.items())
        return reasons

    async def metrics_text(self) -> bytes:
        """Prometheus text of all workers together."""
        sums = await self._all_sums()
        return self._metrics.to_text(sums.families | metrics_to_families(version_metrics(sums.counted)))

    async def statistics(self) -> StatsByVersion:
        """What the versions have done in all workers together."""
        return (await self._all_sums()).counted

    def post(self, generation: int) -> None:
        """Puts this worker's sums and state on the board; whoever sees the state as fresh finds fresh sums too."""
        self._status_store.post_sums(self._own_sums())
        self._status_store.post(generation, self._reasons(), self._registry.failures.all())

    def asked(self) -> int:
        """Differs after another worker has asked for a `post`."""
        return self._status_store.asked()

    def index(self) -> list[IndexEntry]:
        """Every version on disk, and those of the bucket that could not be fetched. Reads the disk: blocks."""
        entries = self._registry.index()
        here = {f"{entry.model}/{entry.version}" for entry in entries}
        elsewhere = {} if self._mirror is None else self._mirror.failures
        missing = ((name.rpartition("/"), why) for name, why in elsewhere.items() if name not in here)
        return entries + [IndexEntry(model, version, False, why) for (model, _, version), why in missing]

    def _reasons(self) -> dict[str, str]:
        """Why this worker is not ready; a bucket that cannot be reached matters only then."""
        reasons = self._registry.not_ready_because()
        if reasons and self._mirror is not None and self._mirror.error:
            return reasons | {"bucket": self._mirror.error}
        return reasons

    def flush_totals(self) -> None:
        """The last sums of a worker that ends."""
        self._status_store.post_sums(self._own_sums())

    async def _all_sums(self) -> WorkerTotals:
        if self._status_store.workers > 1:
            await self._refresh()
        own = self._own_sums()
        self._status_store.post_sums(own)  # before anybody sees them: should this worker die, no sum goes back
        return own if self._status_store.workers == 1 else own.plus(self._status_store.sums_of_others())

    async def _refresh(self) -> None:
        """Until every worker has told its sums as of now; one that does not in time is taken as it last was."""
        asked_s = self._status_store.ask()
        while any(notice is not None and notice.written_s < asked_s for notice in self._status_store.notices()):
            if time.monotonic() - asked_s > REFRESH_S:
                return
            await asyncio.sleep(ASK_EVERY_S)

    def _own_sums(self) -> WorkerTotals:
        loaded = (one for versions in self._registry.all() for one in versions)
        return WorkerTotals(
            self._metrics.families(), {version_key(one.model, one.version): one.statistics for one in loaded}
        )

    async def _change(self, model: str, **change: object) -> None:
        wanted = await asyncio.to_thread(self._state.update, lambda now: now.with_change(model, **change))
        end_s = time.monotonic() + self._timeout_s
        while late := self._behind(wanted.generation):
            if time.monotonic() > end_s:
                raise NotEverywhere(f"Not carried out within {self._timeout_s:g} s by {', '.join(late)}.")
            await asyncio.sleep(ASK_EVERY_S)

    def _behind(self, generation: int) -> list[str]:
        """The workers that have not carried out that generation of the state file."""
        notices = enumerate(self._status_store.notices())
        return [f"worker {slot}" for slot, notice in notices if notice is None or notice.generation < generation]

    def _others_problems(self, model: str) -> list[str]:
        """Workers with versions of the model that they could not load though this one could, and why."""
        own = self._registry.failures.of(model)
        told = (
            (slot, notice.failures.get(model, "")) for slot, notice in enumerate(self._status_store.notices()) if notice
        )
        return [f"worker {slot} ({why.removesuffix('.')})" for slot, why in told if why not in ("", own)]
