"""A version whose files were edited in place is reloaded; an unchanged version is not."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState
from service.model_store.mirror import BucketMirror
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.support.model_versions import write_version
from tests.unit.service.loaded_models.registries import registry_of

IMAGE = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)


def run_with_registry(root: Path, test: Callable[[Registry], Awaitable[None]]) -> None:
    async def run() -> None:
        registry = registry_of(root)
        await registry.reconcile(DesiredState())
        await test(registry)
        await registry.close()

    asyncio.run(run())


def answer(registry: Registry, version: str | None = None) -> list[float]:
    """Returns the probabilities of one image, which differ between the seeds of `write_version`."""
    return registry.get("a", version).session.run(IMAGE)[0].tolist()


def replace_folder(folder: Path, seed: int) -> None:
    shutil.rmtree(folder)
    write_version(folder.parent.parent, folder.parent.name, int(folder.name), seed=seed)


def move_link(folder: Path, seed: int) -> None:
    target = write_version(folder.parent.parent.parent / f"content-{seed}", folder.parent.name, 1, seed=seed)
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)
    folder.symlink_to(target)


@pytest.mark.parametrize("edit", [replace_folder, move_link])
def test_a_version_edited_in_place_is_loaded_again_and_a_restarted_worker_agrees(
    tmp_path: Path, edit: Callable[[Path, int], None]
) -> None:
    root = tmp_path / "models"
    folder = write_version(root, "a", 1, seed=1)

    async def test(registry: Registry) -> None:
        first = registry.get("a").digest, answer(registry)
        for seed in (2, 3):
            edit(folder, seed)
            await registry.reconcile(DesiredState())
            restarted = registry_of(root)
            await restarted.reconcile(DesiredState())
            assert (registry.get("a").digest, answer(registry)) == (restarted.get("a").digest, answer(restarted))
            assert registry.get("a").digest != first[0]
            assert answer(registry) != first[1]
            await restarted.close()

    run_with_registry(root, test)


def test_the_old_content_answers_what_it_accepted(tmp_path: Path) -> None:
    folder = write_version(tmp_path, "a", 1, seed=1)

    async def test(registry: Registry) -> None:
        old = registry.get("a")
        old.batcher.reserve(1)  # a request that is being decoded
        expected = answer(registry)
        replace_folder(folder, seed=2)
        await registry.reconcile(DesiredState())
        assert registry.get("a") is not old
        result = await old.batcher.infer(IMAGE)
        assert result.outputs[0].tolist() == expected

    run_with_registry(tmp_path, test)


def test_the_same_content_is_not_loaded_again(tmp_path: Path) -> None:
    folder = write_version(tmp_path, "a", 1)

    async def test(registry: Registry) -> None:
        loaded = registry.get("a")
        for file in folder.iterdir():
            os.utime(file, (1, 1))
        (folder / "card.md").write_text("# A card")
        await registry.reconcile(DesiredState())
        assert registry.get("a") is loaded
        replace_folder(folder, seed=0)
        await registry.reconcile(DesiredState())
        assert registry.get("a") is loaded

    run_with_registry(tmp_path, test)


@pytest.mark.parametrize("file", ["manifest.json", "labels.txt", "model.onnx"])
def test_a_broken_edit_is_reported_and_what_was_loaded_stays(tmp_path: Path, file: str) -> None:
    folder = write_version(tmp_path, "a", 1)
    content = (folder / file).read_bytes()

    async def test(registry: Registry) -> None:
        loaded = registry.get("a")
        (folder / file).write_bytes(content[:-5])
        for _ in range(3):
            await registry.reconcile(DesiredState())
            assert registry.get("a") is loaded
        (entry,) = registry.index()
        assert (entry.is_ready, file in entry.reason) == (True, True)
        (folder / file).write_bytes(content)
        await registry.reconcile(DesiredState())
        assert registry.index()[0].reason == ""

    run_with_registry(tmp_path, test)


def test_a_version_edited_in_a_bucket_is_loaded_again(mirror: BucketMirror, remote: Path) -> None:
    mirror.sync()

    async def test(registry: Registry) -> None:
        digest = registry.get("a").digest
        replace_folder(remote / "a" / "2", seed=9)
        mirror.sync()
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "2"
        assert registry.get("a").digest != digest
        assert answer(registry) == answer(registry, "2")

    run_with_registry(mirror.folder, test)


def test_a_card_edited_in_a_bucket_is_served_when_the_content_before_is_deleted(
    mirror: BucketMirror, remote: Path
) -> None:
    """The mirror publishes the version again, although its digest is the same."""
    mirror.sync()

    async def test(registry: Registry) -> None:
        digest = registry.get("a").digest
        (remote / "a" / "2" / "card.md").write_text("# A card")
        mirror.sync()
        await registry.reconcile(DesiredState())
        mirror.sync()  # deletes the previous content
        loaded = registry.get("a")
        assert loaded.digest == digest
        assert (loaded.folder.path / "card.md").read_text() == "# A card"

    run_with_registry(mirror.folder, test)


def test_a_repaired_version_with_equal_size_and_time_is_loaded(tmp_path: Path) -> None:
    folder = write_version(tmp_path, "a", 1)
    labels = folder / "labels.txt"
    good, status = labels.read_bytes(), labels.stat()
    labels.write_bytes(good[::-1])
    os.utime(labels, ns=(status.st_atime_ns, status.st_mtime_ns))

    async def test(registry: Registry) -> None:
        assert registry.models() == []
        labels.write_bytes(good)
        os.utime(labels, ns=(status.st_atime_ns, status.st_mtime_ns))
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "1"

    run_with_registry(tmp_path, test)


def test_a_version_being_copied_is_not_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once its files have stopped changing, it is logged once, and counted until it is loaded."""
    write_version(tmp_path, "a", 1)
    graph = write_version(tmp_path, "elsewhere", 2).parent / "2" / "model.onnx"
    metrics = Metrics()
    registry = Registry(Repository(tmp_path), Settings(models=str(tmp_path)), metrics)

    def broken_versions() -> float:
        return metrics.registry.get_sample_value("convoy_broken_versions", {"model": "a"}) or 0

    async def test() -> None:
        await registry.reconcile(DesiredState())
        content = graph.read_bytes()
        copy = tmp_path / "a" / "2"
        shutil.copytree(graph.parent, copy)
        for size in range(0, len(content), len(content) // 10):
            (copy / "model.onnx").write_bytes(content[:size])
            await registry.reconcile(DesiredState())
            assert "model.onnx" in registry.failures.reason_for("a")
        assert (broken_versions(), caplog.messages.count("version is broken")) == (0, 0)
        for _ in range(3):
            await registry.reconcile(DesiredState())
        assert (broken_versions(), caplog.messages.count("version is broken")) == (1, 1)
        (copy / "model.onnx").write_bytes(content)
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "2"
        assert broken_versions() == 0
        await registry.close()

    asyncio.run(test())
