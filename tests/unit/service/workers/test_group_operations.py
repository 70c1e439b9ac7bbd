"""The worker group: a change to all workers is complete only when each worker has applied it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import BrokenVersion, NotEverywhere
from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState, StateFile
from service.model_store.mirror import BucketMirror
from service.model_store.object_store import BucketUnreachable
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.observability.multiprocess import Families
from service.settings import Settings
from service.workers import group_operations
from service.workers.background_tasks import MAX_FAILURES, BackgroundTasks
from service.workers.group_operations import WorkerGroup
from service.workers.worker_status import SupervisorStatus, WorkerStatusStore, WorkerTotals
from tests.support.model_versions import write_version
from tests.unit.service.buckets import WatchedBucket, replace_file

MAX_TURNS = 30_000


class CountedMetrics(Metrics):
    """Counts how often all metrics are collected, which takes milliseconds per model."""

    def __init__(self) -> None:
        super().__init__()
        self.collected = 0

    def families(self) -> Families:
        self.collected += 1
        return super().families()


class Workers:
    """This worker and, if there are two, another worker whose status the test writes."""

    def __init__(self, folder: Path, workers: int = 2, timeout_s: float = 5) -> None:
        models = folder / "models"
        self.version = write_version(models, "a")
        (folder / "status").mkdir()
        self.other = WorkerStatusStore(folder / "status", 1, 2)
        self.state = StateFile(folder / "state.json")
        repository, self.metrics = Repository(models), CountedMetrics()
        self.registry = Registry(repository, Settings(), self.metrics)
        status_store = WorkerStatusStore(folder / "status", 0, workers)
        tasks = self.background_tasks = BackgroundTasks(self.metrics, sleep=lambda _: asyncio.sleep(0))
        self.worker_group = WorkerGroup(
            self.state, status_store, self.registry, repository, self.metrics, tasks, timeout_s
        )

    def is_served(self) -> bool:
        return bool(self.registry.models())

    async def apply(self) -> None:
        """Applies the desired state like this worker's watcher."""
        desired = self.state.read()
        await self.registry.reconcile(desired)
        self.worker_group.publish_status(desired.generation)

    async def load(self, **failures: str) -> None:
        """Loads the model after both workers have applied the change, the other one with these failures."""
        first = 1  # generation of the state file
        await self.registry.reconcile(DesiredState())
        self.worker_group.publish_status(first)
        self.other.publish_status(first, {}, failures)
        await self.worker_group.load("a")


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(MAX_TURNS):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_change_is_complete_when_each_worker_has_applied_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_loaded: bool
) -> None:
    """The change is written to the state file, which each worker reads."""
    monkeypatch.setattr(group_operations, "POLL_INTERVAL_S", 0.0)
    workers = Workers(tmp_path, timeout_s=60)

    async def scenario() -> None:
        await workers.apply()
        change = workers.worker_group.load if is_loaded else workers.worker_group.unload
        changing = asyncio.create_task(change("a"))
        await until(lambda: workers.state.read().generation == 1)
        assert workers.state.read().models["a"].loaded is is_loaded
        await workers.apply()
        assert workers.is_served() is is_loaded
        for _ in range(20):
            await asyncio.sleep(0)
        assert not changing.done(), "the other worker has not applied it"
        workers.other.publish_status(1, {}, {"b": "The failure of another model."})
        await until(changing.done)
        await changing
        await workers.registry.close()

    asyncio.run(scenario())


def test_a_worker_that_does_not_apply_a_change_in_time_is_reported(tmp_path: Path) -> None:
    workers = Workers(tmp_path, timeout_s=0)
    workers.other.publish_status(0, {})
    workers.worker_group.publish_status(1)
    with pytest.raises(NotEverywhere, match=r"^Not carried out within 0 s by worker 1\.$"):
        asyncio.run(workers.worker_group.load("a"))


def test_a_worker_that_could_not_load_it_is_reported(tmp_path: Path) -> None:
    with pytest.raises(NotEverywhere, match=r"'a' cannot be loaded by worker 1 \(No memory\)\.$"):
        asyncio.run(Workers(tmp_path).load(a="No memory."))


def test_a_version_that_no_worker_could_load_is_broken(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    (workers.version / "labels.txt").unlink()
    with pytest.raises(BrokenVersion, match=r"labels\.txt"):
        asyncio.run(workers.load(a="The same."))


def test_a_background_task_that_fails_repeatedly_is_a_reason_that_the_other_workers_see(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    workers.other.publish_status(0, {})

    async def fail_and_wait(on_success: Callable[[], None]) -> None:
        if workers.metrics.background_failures.labels("task")._value.get() < MAX_FAILURES:
            raise OSError("no disk")
        await asyncio.Event().wait()

    async def scenario() -> None:
        await workers.apply()
        assert workers.worker_group.not_ready_reasons() == {}
        tasks = workers.background_tasks
        tasks.start("task", fail_and_wait)
        await until(lambda: bool(tasks.not_ready_reasons()))
        await workers.apply()
        assert workers.worker_group.not_ready_reasons().keys() == {"background task task", "worker 0"}
        status = workers.other.statuses()[0]
        assert status is not None
        assert "no disk" in status.reasons["background task task"]
        await tasks.stop()
        await workers.registry.close()

    asyncio.run(scenario())


def test_a_single_worker_collects_its_metrics_when_they_are_requested_only(tmp_path: Path) -> None:
    workers = Workers(tmp_path, workers=1)
    for _ in range(3):
        workers.worker_group.publish_status(0)
    workers.worker_group.flush_totals()
    assert workers.metrics.collected == 0
    workers.metrics.requests.labels("r", 200).inc()
    assert b'convoy_requests_total{code="200",route="r"} 1.0' in asyncio.run(workers.worker_group.metrics_text())
    assert workers.metrics.collected == 1
    assert list((tmp_path / "status").iterdir()) == []


def test_one_of_two_workers_publishes_its_totals_once_per_request_of_another(tmp_path: Path) -> None:
    workers = Workers(tmp_path)
    workers.worker_group.publish_status(0)
    assert workers.metrics.collected == 0
    workers.metrics.requests.labels("r", 200).inc()
    request = workers.other.request_refresh()
    for _ in range(2):
        workers.worker_group.publish_status(0)
    assert workers.metrics.collected == 1
    (own_status, _) = workers.other.statuses()
    assert own_status is not None
    assert own_status.answered_request == request
    counted = workers.other.totals_of_others().families["convoy_requests"]["samples"]
    assert counted == {'["convoy_requests_total",{"code":"200","route":"r"}]': 1.0}


def test_metrics_of_all_workers_wait_for_fresh_totals_of_the_others(tmp_path: Path) -> None:
    workers, other_metrics = Workers(tmp_path), Metrics()
    other_metrics.requests.labels("r", 200).inc(2)
    workers.metrics.requests.labels("r", 200).inc()
    workers.other.publish_status(0, {})

    async def text() -> bytes:
        task = asyncio.create_task(workers.worker_group.metrics_text())
        await asyncio.sleep(0)  # the operation polls, and waits
        workers.other.publish_totals(WorkerTotals(other_metrics.families()))
        workers.other.publish_status(0, {}, answered_request=workers.other.refresh_request())
        return await task

    assert b'convoy_requests_total{code="200",route="r"} 3.0' in asyncio.run(text())


def test_a_worker_whose_gpu_has_failed_is_a_warning_and_is_not_waited_for(tmp_path: Path) -> None:
    workers = Workers(tmp_path, timeout_s=0.0)
    group = workers.worker_group
    asyncio.run(workers.apply())
    assert list(group.not_ready_reasons()) == ["worker 1"]
    workers.other.mark_lost(1, "GPU 1: The worker ended itself with code 3.")
    assert group.not_ready_reasons() == {}
    assert group.warnings() == {"worker 1": "GPU 1: The worker ended itself with code 3."}
    assert group._workers_behind(0) == []
    workers.other.clear_lost(1)
    assert list(group.not_ready_reasons()) == group._workers_behind(0) == ["worker 1"]


def test_a_problem_while_models_are_served_is_a_warning(
    tmp_path: Path, mirror: BucketMirror, bucket: WatchedBucket, remote: Path
) -> None:
    """This includes an edited version that is still served with its previous content."""
    mirror.sync()
    repository, metrics = Repository(mirror.folder), Metrics()
    registry = Registry(repository, Settings(), metrics)
    (tmp_path / "status").mkdir()
    status_store = WorkerStatusStore(tmp_path / "status", 0, 1)
    state = StateFile(tmp_path / "state.json")
    tasks = BackgroundTasks(metrics)
    group = WorkerGroup(state, status_store, registry, repository, metrics, tasks, timeout_s=5, mirror=mirror)
    asyncio.run(registry.reconcile(DesiredState()))
    assert (group.warnings(), group.not_ready_reasons()) == ({}, {})
    (mirror.folder / "b" / "1" / "model.onnx").write_bytes(b"damaged")
    asyncio.run(registry.reconcile(DesiredState()))
    write_version(remote, "a", 3)
    replace_file(remote / "a" / "2" / "labels.txt", b"edited")
    bucket.lost_prefixes = ("a/3/",)
    mirror.sync()
    bucket.is_down = True
    with pytest.raises(BucketUnreachable):
        mirror.sync()
    assert group.not_ready_reasons() == {}
    warnings = group.warnings()
    assert warnings.keys() == {"b", "a/2", "a/3", "bucket"}
    assert "model.onnx" in warnings["b"]
    assert warnings["a/3"] == "a/3/manifest.json does not answer."
    assert warnings["bucket"] == "the bucket is down."
    entries = {(entry.model, entry.version): (entry.is_ready, entry.reason) for entry in group.index()}
    assert entries["a", "3"] == (False, warnings["a/3"])
    assert entries["a", "2"] == (True, warnings["a/2"])


@pytest.mark.parametrize("count", [1, 2])
def test_a_stuck_model_ends_the_service_if_it_has_one_worker_and_else_only_that_worker(
    tmp_path: Path, count: int
) -> None:
    """With several workers, the stuck one publishes it, and the supervisor replaces that worker."""

    class StuckRegistry(Registry):
        def stuck_models(self) -> dict[str, str]:
            return {"a": "It hangs."}

    repository, metrics = Repository(tmp_path), Metrics()
    registry = StuckRegistry(repository, Settings(), metrics)
    status_store = WorkerStatusStore(tmp_path, 0, count)
    state, tasks = StateFile(tmp_path / "s.json"), BackgroundTasks(metrics)
    worker_group = WorkerGroup(state, status_store, registry, repository, metrics, tasks, timeout_s=5)
    worker_group.publish_status(0)
    own_status = status_store.statuses()[0]
    assert own_status is not None
    assert own_status.stuck_models == {"a": "It hangs."}
    assert worker_group.not_live_reasons() == ({"a": "It hangs."} if count == 1 else {})


def test_metrics_show_readiness_restarts_and_start_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_operations, "REFRESH_TIMEOUT_S", 0.0)
    workers = Workers(tmp_path)
    workers.other.publish_supervisor(SupervisorStatus(started_at_s=1234.5, restarts=3, unresponsive=1))
    workers.other.publish_status(0, {})
    samples = asyncio.run(service_samples(workers))
    assert samples["convoy_ready"] == 0, "this worker has not loaded its models"
    assert samples["convoy_start_timestamp_seconds"] == 1234.5
    assert samples["convoy_worker_restarts_total"] == 3
    assert samples["convoy_unresponsive_workers"] == 1
    assert samples["convoy_workers"] == 2

    async def load_and_read() -> dict[str, float]:
        await workers.load()
        return await service_samples(workers)

    assert asyncio.run(load_and_read())["convoy_ready"] == 1
    workers.other.publish_status(1, {"service": "There is no model."})
    assert asyncio.run(service_samples(workers))["convoy_ready"] == 0


async def service_samples(workers: Workers) -> dict[str, float]:
    """Returns the samples without labels, as a scraper reads them."""
    families = text_string_to_metric_families((await workers.worker_group.metrics_text()).decode())
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}
