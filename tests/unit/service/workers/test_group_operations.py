"""The worker group: a change of all workers is complete only when each has applied it."""

import asyncio
from pathlib import Path

import pytest

from service.errors import BrokenVersion, NotEverywhere
from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState, StateFile
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings
from service.workers.group_operations import WorkerGroup
from service.workers.worker_status import WorkerStatusStore
from tests.support.model_versions import write_version


class TwoWorkers:
    """This worker, and another whose status the test writes."""

    def __init__(self, folder: Path) -> None:
        models = folder / "models"
        self.version = write_version(models, "a")
        (folder / "status").mkdir()
        self.other = WorkerStatusStore(folder / "status", 1, 2)
        self.state = StateFile(folder / "state.json")
        repository, metrics = Repository(models), Metrics()
        self.registry = Registry(repository, Settings(), metrics)
        self.worker_group = WorkerGroup(
            self.state, WorkerStatusStore(folder / "status", 0, 2), self.registry, repository, metrics, timeout_s=5
        )

    async def load(self, **failures: str) -> None:
        """Has the model loaded, which both have carried out already, the other worker with these problems."""
        first = 1  # generation of the state file
        await self.registry.reconcile(DesiredState())
        self.worker_group.publish_status(first)
        self.other.publish_status(first, {}, failures)
        await self.worker_group.load("a")


def test_a_model_that_all_have_loaded_is_loaded(tmp_path: Path) -> None:
    asyncio.run(TwoWorkers(tmp_path).load(b="Another model's problem."))


def test_a_worker_that_could_not_load_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotEverywhere, match=r"'a' cannot be loaded by worker 1 \(No memory\)\.$"):
        asyncio.run(TwoWorkers(tmp_path).load(a="No memory."))


def test_what_none_could_load_is_broken(tmp_path: Path) -> None:
    workers = TwoWorkers(tmp_path)
    (workers.version / "labels.txt").unlink()
    with pytest.raises(BrokenVersion, match=r"labels\.txt"):
        asyncio.run(workers.load(a="The same."))
