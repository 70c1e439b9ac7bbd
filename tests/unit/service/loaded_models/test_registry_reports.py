"""Reports of the registry: the reason why a version is not loaded, the gauges of a model, and the log line of a
version."""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.loaded_models import loaded_version
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Registry, RepositoryEntry
from service.model_store.desired_state import DesiredState
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.support.model_versions import write_version
from tests.unit.service.batching import run_callbacks
from tests.unit.service.loaded_models.registries import registry_of


def test_the_index_says_why_a_version_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2, 3):
        write_version(tmp_path, "a", version)
    (tmp_path / "a" / "3" / "manifest.json").write_text("{")
    registry = registry_of(tmp_path)
    seen_while_loading: list[RepositoryEntry] = []
    load = loaded_version.load

    def load_and_look(*arguments: Any) -> LoadedVersion:
        seen_while_loading.extend(registry.index())
        return load(*arguments)

    monkeypatch.setattr(loaded_version, "load", load_and_look)
    asyncio.run(registry.reconcile(DesiredState()))
    assert {entry.version: entry.reason for entry in seen_while_loading}["2"] == "loading"
    one, two, three = registry.index()
    assert (one.reason, two.reason) == ("unloaded", "")
    assert "manifest.json" in three.reason
    assert [entry.is_ready for entry in (one, two, three)] == [False, True, False]


def test_the_metrics_follow_the_loaded_versions(tmp_path: Path) -> None:
    for version in (1, 2):
        write_version(tmp_path, "a", version)
    metrics = Metrics()
    registry = Registry(Repository(tmp_path), Settings(models=str(tmp_path), latest_versions=2), metrics)

    def gauge(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"model": "a"})

    async def test() -> None:
        await registry.reconcile(DesiredState())
        assert gauge("convoy_loaded_versions") == 2
        for version, images in (("1", 1), ("2", 3)):
            registry.get("a", version).batcher.reserve(images)
        assert (gauge("convoy_queue_images"), gauge("convoy_running_batches")) == (4, 0)
        for version, images in (("1", 1), ("2", 3)):
            registry.get("a", version).batcher.release(images)
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a").mkdir()
        await registry.reconcile(DesiredState())  # the folder exists, but contains no version
        assert gauge("convoy_loaded_versions") == 0
        assert registry.models() == []
        assert registry._loader._fingerprints == {}
        await registry.close()

    asyncio.run(test())


def test_each_version_is_logged_once_when_it_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_version(tmp_path, "a", 1)
    registry = registry_of(tmp_path)

    async def test() -> None:
        with caplog.at_level(logging.INFO, logger="convoy"):
            await registry.reconcile(DesiredState())
            assert caplog.messages == ["version is loaded"]
            await registry.reconcile(DesiredState())
        await run_callbacks()
        one = registry.get("a")
        one.batcher.reserve(1)  # the version is kept, and still accepts requests
        one.batcher.release(1)
        (record,) = [record for record in caplog.records if record.message == "version is loaded"]
        assert record.fields == {  # type: ignore[attr-defined]
            "model": "a",
            "version": "1",
            "digest": one.digest,
            "engine": "cpu",
            "precision": "float32",
            "hint": "",
            "engine_ms": one.engine_choice.times_ms,
            "provider": "CPUExecutionProvider",
            "threads": one.threads,
            "device": "cpu",
            "nodes": {},
            "instances": one.instances,
            "max_batch_size": one.max_batch_size,
            "batch_ms": one.batch_ms,
        }
        await registry.close()

    asyncio.run(test())
