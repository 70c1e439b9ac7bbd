"""Operations on all workers: writes a change once and waits until each worker has applied it, and adds up counters.

Reaches the other workers only through their status files.
"""

import asyncio
import time
from importlib.metadata import version as version_of

from service.errors import BrokenModel, BrokenVersion, NotEverywhere, NotReady, UnknownModel
from service.loaded_models.registry import Registry, RepositoryEntry
from service.model_store.desired_state import StateFile
from service.model_store.mirror import BucketMirror
from service.model_store.repository import Repository
from service.observability.metrics import Metrics, model_info, version_metrics
from service.observability.multiprocess import StatsByVersion, metrics_to_families, version_key
from service.observability.service_metrics import service_metrics
from service.workers.background_tasks import BackgroundTasks
from service.workers.worker_status import WorkerStatusStore, WorkerTotals

POLL_INTERVAL_S = 0.02
REFRESH_TIMEOUT_S = 1.0


class WorkerGroup:
    """All workers as one. A single worker runs the same code without other processes."""

    def __init__(
        self,
        state: StateFile,
        status_store: WorkerStatusStore,
        registry: Registry,
        repository: Repository,
        metrics: Metrics,
        background_tasks: BackgroundTasks,
        timeout_s: float,
        mirror: BucketMirror | None = None,
    ) -> None:
        """`timeout_s` limits the time until all workers have applied a change. `mirror` is the mirror of a bucket."""
        self._state = state
        self._status_store = status_store
        self._registry = registry
        self._repository = repository
        self._metrics = metrics
        self._background_tasks = background_tasks
        self._timeout_s = timeout_s
        self._mirror = mirror
        self._version = version_of("convoy")
        self._answered_request = 0

    async def load(self, model: str) -> None:
        """Makes every worker load the desired versions of the model, including versions that failed before.

        Raises UnknownModel, BrokenVersion, NotEverywhere or BadState.
        """
        try:
            versions = await asyncio.to_thread(self._repository.versions, model)
        except OSError as error:
            raise BrokenVersion(f"'{model}' cannot be loaded: its folder cannot be read: {error.strerror}.") from error
        if not versions:
            known_models = await asyncio.to_thread(self._repository.models)
            raise UnknownModel.suggesting(model, known_models, self._repository.root)
        await self._apply_change(model, loaded=True)
        try:
            self._registry.get(model)
        except (UnknownModel, NotReady, BrokenModel):
            raise BrokenVersion(f"'{model}' cannot be loaded: {self._registry.failures.reason_for(model)}") from None
        if others := self._failures_elsewhere(model):
            raise NotEverywhere(f"'{model}' cannot be loaded by {', '.join(others)}.")

    async def unload(self, model: str) -> None:
        """Makes every worker unload the model. Raises UnknownModel, NotEverywhere or BadState."""
        self._registry.get(model)
        await self._apply_change(model, loaded=False)

    @property
    def is_stopping(self) -> bool:
        """Whether the supervisor was asked to stop; the workers may still serve."""
        return self._status_store.workers > 1 and self._status_store.supervisor().is_stopping

    def not_ready_reasons(self) -> dict[str, str]:
        """Returns the reasons why this or another worker is not ready; empty if all are ready.

        A worker whose GPU has failed does not count, but is reported in `warnings`.
        """
        reasons = self._reasons()
        if self._status_store.workers == 1:
            return reasons
        lost = self._status_store.lost_workers()
        for worker_id, status in enumerate(self._status_store.statuses()):
            if worker_id in lost:
                continue  # the other workers serve without it
            if status is None:
                reasons[f"worker {worker_id}"] = "The worker is starting, or does not answer."
            elif status.reasons:
                reasons[f"worker {worker_id}"] = " ".join(
                    f"{name}: {reason}" for name, reason in status.reasons.items()
                )
        return reasons

    def not_live_reasons(self) -> dict[str, str]:
        """Returns the reasons to restart a service with one worker, by model. With several workers, the supervisor
        replaces the worker."""
        return self._registry.stuck_models() if self._status_store.workers == 1 else {}

    def warnings(self) -> dict[str, str]:
        """Returns problems that do not prevent serving: failed versions by model, workers that cannot start, and
        versions that cannot be fetched from the bucket."""
        lost = self._status_store.lost_workers()
        warnings = self._registry.failures.reasons() | {f"worker {number}": reason for number, reason in lost.items()}
        if self._mirror is not None:
            warnings |= self._mirror.failures
            if self._mirror.error:
                warnings["bucket"] = self._mirror.error
        return warnings

    async def metrics_text(self) -> bytes:
        """Returns the metrics of all workers together in Prometheus' text format."""
        totals = await self._all_totals()
        supervisor = self._status_store.supervisor()
        families = [
            *version_metrics(totals.stats),
            model_info(self._registry.engine_rows()),
            *service_metrics(
                is_ready=not self.not_ready_reasons(),
                started_at_s=supervisor.started_at_s,
                worker_restarts=supervisor.restarts,
                unresponsive_workers=supervisor.unresponsive,
                workers=self._status_store.workers - len(self._status_store.lost_workers()),
                version=self._version,
            ),
        ]
        return self._metrics.to_text(totals.families | metrics_to_families(families))

    async def statistics(self) -> StatsByVersion:
        """Returns the statistics of the loaded versions, added up over all workers."""
        return (await self._all_totals()).stats

    def publish_status(self, generation: int) -> None:
        """Publishes the status of this worker. Publishes its totals first if another worker has requested them.

        Totals are published only on request, because collecting the totals of many models takes tens of milliseconds.
        """
        request = self._status_store.refresh_request()
        if request != self._answered_request:
            self._status_store.publish_totals(self._own_totals())
            self._answered_request = request
        self._status_store.publish_status(
            generation, self._reasons(), self._registry.failures.reasons(), request, self._registry.stuck_models()
        )

    def refresh_request(self) -> int:
        """Returns a value that changes when another worker requests a fresh status."""
        return self._status_store.refresh_request()

    def index(self) -> list[RepositoryEntry]:
        """Returns every version on disk, and the versions in the bucket that could not be fetched. Blocks."""
        entries = {f"{entry.model}/{entry.version}": entry for entry in self._registry.index()}
        failures = {} if self._mirror is None else self._mirror.failures
        for path, reason in failures.items():
            model, _, version = path.rpartition("/")
            entry = entries.setdefault(path, RepositoryEntry(model, version, False, reason))
            if not entry.reason:  # the version is served, but its new content cannot be fetched
                entries[path] = entry._replace(reason=reason)
        return list(entries.values())

    def _reasons(self) -> dict[str, str]:
        """Returns the reasons why this worker is not ready. An unreachable bucket is added only to other reasons."""
        reasons = self._registry.not_ready_reasons() | self._background_tasks.not_ready_reasons()
        if reasons and self._mirror is not None and self._mirror.error:
            return reasons | {"bucket": self._mirror.error}
        return reasons

    def flush_totals(self) -> None:
        """Publishes the totals of this worker for the last time, when it ends."""
        if self._status_store.workers > 1:
            self._status_store.publish_totals(self._own_totals())

    async def _all_totals(self) -> WorkerTotals:
        if self._status_store.workers == 1:
            return self._own_totals()
        await self._refresh()
        own = self._own_totals()
        self._status_store.publish_totals(own)  # first, so that no counter decreases if this worker dies
        return own.plus(self._status_store.totals_of_others())

    async def _refresh(self) -> None:
        """Waits until every worker has published fresh totals. After REFRESH_TIMEOUT_S the last totals are used."""
        started_s, request = time.monotonic(), self._status_store.request_refresh()
        while any(status is not None and status.answered_request < request for status in self._status_store.statuses()):
            if time.monotonic() - started_s > REFRESH_TIMEOUT_S:
                return
            await asyncio.sleep(POLL_INTERVAL_S)

    def _own_totals(self) -> WorkerTotals:
        loaded = (one for versions in self._registry.versions_by_model() for one in versions)
        return WorkerTotals(
            self._metrics.families(), {version_key(one.model, one.version): one.statistics for one in loaded}
        )

    async def _apply_change(self, model: str, **change: object) -> None:
        desired = await asyncio.to_thread(self._state.update, lambda now: now.with_change(model, **change))
        end_s = time.monotonic() + self._timeout_s
        while behind := self._workers_behind(desired.generation):
            if time.monotonic() > end_s:
                raise NotEverywhere(f"Not carried out within {self._timeout_s:g} s by {', '.join(behind)}.")
            await asyncio.sleep(POLL_INTERVAL_S)

    def _workers_behind(self, generation: int) -> list[str]:
        """Returns the workers that have not applied this generation of the state file."""
        lost = self._status_store.lost_workers()
        return [
            f"worker {worker_id}"
            for worker_id, status in enumerate(self._status_store.statuses())
            if (status is None or status.generation < generation) and worker_id not in lost
        ]

    def _failures_elsewhere(self, model: str) -> list[str]:
        """Returns the other workers that failed to load versions of the model for a reason that this worker does not
        have."""
        own_failure = self._registry.failures.reason_for(model)
        failures = (
            (worker_id, status.failures.get(model, ""))
            for worker_id, status in enumerate(self._status_store.statuses())
            if status
        )
        return [
            f"worker {worker_id} ({reason.removesuffix('.')})"
            for worker_id, reason in failures
            if reason not in ("", own_failure)
        ]
