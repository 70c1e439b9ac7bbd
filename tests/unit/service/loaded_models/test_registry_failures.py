"""Models and versions that cannot be read or loaded do not affect others in the registry."""

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import BrokenModel, UnknownVersion
from service.loaded_models import loaded_version
from service.loaded_models.loaded_version import LoadedVersion
from service.loaded_models.registry import Registry
from service.model_store.bucket_cache import BucketCache
from service.model_store.desired_state import DesiredState
from service.model_store.repository import Listing, Repository, VersionFolder
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import endless_graph
from tests.unit.service.loaded_models.registries import loaded, registry_of, versions


def test_an_unreadable_model_does_not_block_changes_of_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class UnreadableRepository(Repository):
        unreadable = ""

        def versions(self, model: str) -> list[int]:
            if model == self.unreadable:
                raise PermissionError(13, "Permission denied")
            return super().versions(model)

    async def test() -> None:
        repository = UnreadableRepository(tmp_path)
        registry = Registry(repository, Settings(models=str(tmp_path)), Metrics())
        write_version(tmp_path, "a", 1)
        write_version(tmp_path, "b", 1)
        await registry.reconcile(DesiredState())
        repository.unreadable = "a"
        write_version(tmp_path, "b", 2)
        await registry.reconcile(DesiredState())
        await registry.reconcile(DesiredState())
        assert versions(registry) == {"a": ["1"], "b": ["2"]}
        (record,) = [record for record in caplog.records if record.message == "model cannot be read"]
        reason = "Its folder cannot be read: Permission denied."
        assert record.fields == {"model": "a", "reason": reason}  # type: ignore[attr-defined]
        assert [(entry.model, entry.version, entry.is_ready) for entry in registry.index()] == [
            *(("a", "1", True), ("b", "1", False), ("b", "2", True))
        ]
        assert registry.failures.reason_for("a") == reason
        repository.unreadable = ""
        await registry.reconcile(DesiredState())
        assert registry.failures.reason_for("a") == ""
        await registry.close()

    asyncio.run(test())


def test_a_version_with_unreadable_files_does_not_block_others(tmp_path: Path) -> None:
    circle = write_version(tmp_path, "a", 1) / "circle"
    circle.symlink_to(circle)
    broken = write_version(tmp_path, "b", 1) / "labels.txt"
    broken.unlink()
    broken.symlink_to(broken)
    write_version(tmp_path, "c", 1)
    registry = loaded(tmp_path)
    assert versions(registry) == {"a": ["1"], "c": ["1"]}
    assert "labels.txt" in registry.failures.reason_for("b")


def test_any_error_of_one_version_does_not_block_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: VersionFolder, *rest: Any) -> LoadedVersion:
        if folder.model == "a":
            raise MemoryError
        return loaded_version.load(folder, *rest)

    monkeypatch.setattr("service.loaded_models.version_loader.loaded_version", SimpleNamespace(load=load))
    write_version(tmp_path, "a", 1)
    write_version(tmp_path, "b", 1)
    registry = loaded(tmp_path)
    assert versions(registry) == {"b": ["1"]}
    assert registry.failures.reason_for("a") == "MemoryError"


def test_a_root_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_: Repository) -> Listing:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Repository, "scan", deny)  # for a test that runs as root, no folder is unreadable
    assert "cannot be read: Permission denied" in loaded(tmp_path).not_ready_reasons()["service"]


def test_a_broken_version_is_tried_again_when_its_files_change_or_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        write_version(tmp_path, "a", 1)
        folder = write_version(tmp_path, "a", 2)
        good = (folder / "labels.txt").read_bytes()
        (folder / "labels.txt").write_bytes(b"other\n")
        metrics = Metrics()
        registry = Registry(Repository(tmp_path), Settings(models=str(tmp_path)), metrics)

        def broken_versions() -> float:
            return metrics.registry.get_sample_value("convoy_broken_versions", {"model": "a"}) or 0

        for _ in range(3):
            await registry.reconcile(DesiredState())
        assert (registry.get("a").version, broken_versions()) == ("1", 1)
        assert [(e.version, e.is_ready) for e in registry.index()] == [("1", True), ("2", False)]
        await registry.reconcile(DesiredState(), retry=True)
        assert broken_versions() == 1
        assert caplog.messages.count("version is broken") == 2
        (folder / "labels.txt").write_bytes(good)
        await registry.reconcile(DesiredState())
        assert (registry.get("a").version, broken_versions()) == ("2", 0)
        assert registry.failures.reason_for("a") == ""
        await registry.close()

    asyncio.run(test())


def test_a_broken_model_added_later_does_not_fail_a_running_service(tmp_path: Path) -> None:
    async def test() -> None:
        write_version(tmp_path, "a", 1)
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        (write_version(tmp_path, "b", 1) / "model.onnx").write_bytes(b"")
        await registry.reconcile(DesiredState())
        assert registry.not_ready_reasons() == {}
        with pytest.raises(BrokenModel, match="None of the versions of model 'b' could be loaded"):
            registry.get("b")
        await registry.close()

    asyncio.run(test())


def test_the_previous_version_replaces_a_broken_one(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1)
    (write_version(tmp_path, "a", 2) / "labels.txt").write_text("other\n")
    registry = loaded(tmp_path)
    assert registry.get("a").version == "1"
    assert registry.not_ready_reasons() == {}


def test_a_loaded_version_whose_files_are_gone_answers_until_another_one_can_be_loaded(tmp_path: Path) -> None:
    async def test() -> None:
        write_version(tmp_path, "a", 1)
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        shutil.rmtree(tmp_path / "a" / "1")
        write_version(tmp_path, "a", 2)
        (tmp_path / "a" / "2" / "manifest.json").write_text("{")
        await registry.reconcile(DesiredState())
        assert versions(registry) == {"a": ["1"]}
        await registry.close()

    asyncio.run(test())


def test_a_version_evicted_from_the_cache_answers_until_its_new_content_is_loaded(tmp_path: Path) -> None:
    """A worker that starts meanwhile serves the previous version."""

    async def test() -> None:
        for version in (1, 2):
            write_version(tmp_path, "a", version)
        registry, restarted = registry_of(tmp_path), registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        old = registry.get("a")
        BucketCache(tmp_path).evict("a/2")
        await registry.reconcile(DesiredState())
        await registry.reconcile(DesiredState())
        assert registry.get("a") is old
        assert old.version == "2"
        await restarted.reconcile(DesiredState())
        assert restarted.get("a").version == "1"
        (tmp_path / "a" / "2").rmdir()
        write_version(tmp_path, "a", 2, seed=9)
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "2"
        assert registry.get("a").digest != old.digest

    asyncio.run(test())


def test_a_model_whose_last_version_is_removed_while_the_root_is_read_is_unloaded(tmp_path: Path) -> None:
    class EmptiedRepository(Repository):
        def versions(self, model: str) -> list[int]:
            return []

    async def test() -> None:
        write_version(tmp_path, "a", 1)
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        registry._repository = EmptiedRepository(tmp_path)
        await registry.reconcile(DesiredState())
        assert versions(registry) == {}
        await registry.close()

    asyncio.run(test())


def test_a_model_without_any_good_version_states_the_reason(tmp_path: Path) -> None:
    (write_version(tmp_path, "a", 1) / "model.onnx").unlink()
    registry = loaded(tmp_path)
    assert "model.onnx cannot be read" in registry.not_ready_reasons()["a"]
    with pytest.raises(BrokenModel):
        registry.get("a")


def test_a_version_that_never_ends_its_warm_up_keeps_no_other_from_being_loaded(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1, graph=endless_graph((8, 8, 1), 4, "GreaterOrEqual", 0))
    write_version(tmp_path, "b", 1)
    write_version(tmp_path, "b", 2, graph=endless_graph((8, 8, 1), 4, "GreaterOrEqual", 0))
    registry = Registry(Repository(tmp_path), Settings(models=str(tmp_path)), Metrics(), warm_up_timeout_s=0.1)
    asyncio.run(registry.reconcile(DesiredState()))
    assert versions(registry) == {"b": ["1"]}
    assert "did not end its warm-up" in registry.not_ready_reasons()["a"]


def test_a_version_that_cannot_be_closed_is_logged_and_does_not_keep_the_service_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_version(tmp_path, "a", 1)
    write_version(tmp_path, "b", 1)
    registry = registry_of(tmp_path)
    close = LoadedVersion.close

    async def close_unless_a(loaded: LoadedVersion) -> None:
        await close(loaded)
        if loaded.model == "a":
            raise OSError("a mistake")

    monkeypatch.setattr(LoadedVersion, "close", close_unless_a)

    async def test() -> None:
        await registry.reconcile(DesiredState())
        await registry.close()

    asyncio.run(test())
    assert registry.models() == []
    assert caplog.messages == ["version is not unloaded completely"]
    assert registry._metrics.background_failures.labels("unload")._value.get() == 1


def test_a_version_in_two_folders_is_not_served_and_the_others_are(tmp_path: Path) -> None:
    async def test() -> None:
        write_version(tmp_path, "a", 2).rename(tmp_path / "a" / "002")
        for version in (1, 2):
            write_version(tmp_path, "a", version)
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "1"
        with pytest.raises(UnknownVersion):
            registry.get("a", "2")
        one, two = registry.index()
        assert (one.is_ready, two.is_ready) == (True, False)
        assert "'002' and '2'" in two.reason
        shutil.rmtree(tmp_path / "a" / "002")
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "2"
        await registry.close()

    asyncio.run(test())


def test_a_loaded_version_keeps_serving_when_a_duplicate_folder_appears(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same happens when its content is replaced by broken content. The index also reports duplicates of other
    versions."""

    async def test() -> None:
        for version in (1, 2):
            write_version(tmp_path, "a", version)
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        for name in ("01", "0002"):
            (tmp_path / "a" / name).mkdir()
        for _ in range(2):  # a failure counts when the files have not changed between two scans
            await registry.reconcile(DesiredState())
        assert registry.get("a", "2").version == "2"
        one, two = registry.index()
        assert (one.is_ready, two.is_ready) == (False, True)
        assert "'01' and '1'" in one.reason
        assert "'0002' and '2'" in two.reason
        assert registry.failures.confirmed_count("a") == 1
        for name in ("01", "0002"):
            (tmp_path / "a" / name).rmdir()
        await registry.reconcile(DesiredState())
        assert [entry.reason for entry in registry.index()] == ["unloaded", ""]
        await registry.close()

    asyncio.run(test())
    (fields,) = [record.fields for record in caplog.records if record.message == "version is broken"]
    assert fields["version"] == 2
    assert "'0002' and '2'" in fields["reason"]


def test_a_version_whose_folder_is_renamed_is_loaded_from_the_new_one(tmp_path: Path) -> None:
    async def test() -> None:
        folder = write_version(tmp_path, "a", 2)
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        folder.rename(tmp_path / "a" / "0002")
        await registry.reconcile(DesiredState())
        assert registry.get("a", "2").folder.path == tmp_path / "a" / "0002"
        await registry.close()

    asyncio.run(test())


def test_an_entry_that_is_not_a_version_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        write_version(tmp_path, "a", 1)
        (tmp_path / "a" / "card.md").write_text("")
        registry = registry_of(tmp_path)
        for _ in range(2):
            await registry.reconcile(DesiredState())
        await registry.close()

    asyncio.run(test())
    (fields,) = [record.fields for record in caplog.records if record.message == "entry is not a version"]
    assert fields == {"path": "a/card.md", "reason": "it is not a folder"}
