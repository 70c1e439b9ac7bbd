"""The registry: the loaded versions, the default version, and the reasons why other versions are not served."""

import asyncio
import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import BrokenModel, NotReady, UnknownModel, UnknownVersion
from service.inference.session import Session
from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState, ModelSpec, Specific
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import slow_graph
from tests.unit.service.loaded_models.registries import loaded, registry_of, state_with, versions


def test_the_newest_version_is_loaded_and_answers(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        write_version(tmp_path, "a", version)
    write_version(tmp_path, "b", 3)
    registry = loaded(tmp_path)
    assert versions(registry) == {"a": ["10"], "b": ["3"]}
    assert registry.get("a").version == "10"
    assert registry.get("a", "10") is registry.get("a")
    assert registry.not_ready_reasons() == {}


def test_several_versions_are_loaded_if_configured(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        write_version(tmp_path, "a", version)
    registry = loaded(tmp_path, latest_versions=2)
    assert versions(registry) == {"a": ["10", "2"]}
    assert registry.get("a", "2").version == "2"
    with pytest.raises(UnknownVersion, match="no loaded version or label '1'"):
        registry.get("a", "1")


@pytest.mark.parametrize("folder", ["7", "007"])
def test_a_version_number_may_have_leading_zeros_in_a_request_and_on_disk(tmp_path: Path, folder: str) -> None:
    write_version(tmp_path, "a", 7).rename(tmp_path / "a" / folder)
    write_version(tmp_path, "a", 10)
    registry = loaded(tmp_path, state_with(versions="all", labels={"stable": 7}))
    assert [registry.get("a", name).version for name in ("7", "007", "0007", "010")] == ["7", "7", "7", "10"]
    for name in ("0", "00", "0stable", "70", "", "\u0667", "-7", "7.0"):
        with pytest.raises(UnknownVersion):
            registry.get("a", name)


def test_load_only_loads_one_model_as_specified_and_unloads_all_others(tmp_path: Path) -> None:
    for model in ("a", "b"):
        for version in (1, 2):
            write_version(tmp_path, model, version)
    registry = registry_of(tmp_path)

    async def test() -> None:
        await registry.reconcile(DesiredState())
        assert versions(registry) == {"a": ["2"], "b": ["2"]}
        await registry.load_only("a", ModelSpec(versions=Specific(specific=[1])))
        assert versions(registry) == {"a": ["1"]}
        assert registry.not_ready_reasons() == {}
        await registry.reconcile(DesiredState())
        assert versions(registry) == {"a": ["2"], "b": ["2"]}
        await registry.close()

    asyncio.run(test())


def test_load_only_of_a_model_that_does_not_exist_loads_nothing(tmp_path: Path) -> None:
    write_version(tmp_path, "b", 1)
    registry = registry_of(tmp_path)
    asyncio.run(registry.load_only("a", ModelSpec()))
    assert versions(registry) == {}
    with pytest.raises(UnknownModel):
        registry.get("a")


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("all", ["10", "2", "1"]), ({"latest": 2}, ["10", "2"]), ({"specific": [1, 2, 7]}, ["2", "1"]), (None, ["10"])],
)
def test_policies(tmp_path: Path, policy: object, kept: list[str]) -> None:
    for version in (1, 2, 10):
        write_version(tmp_path, "a", version)
    registry = loaded(tmp_path, state_with(versions=policy))
    assert versions(registry) == {"a": kept}
    assert registry.get("a").version == kept[0]


def test_labels_name_versions_and_load_them_without_making_them_the_default(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write_version(tmp_path, "a", version)
    registry = loaded(tmp_path, state_with(versions={"specific": [2]}, labels={"stable": 2, "canary": 3, "lost": 9}))
    assert registry.get("a").version == "2"
    assert registry.get("a", "canary").version == registry.get("a", "3").version == "3"
    assert registry.model("a").labels == {"stable": "2", "canary": "3"}
    with pytest.raises(UnknownVersion, match="label 'lost'"):
        registry.get("a", "lost")


def test_a_replaced_version_answers_its_accepted_requests(tmp_path: Path) -> None:
    async def test() -> None:
        write_version(tmp_path, "a", 1)
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        old = registry.get("a")
        old.batcher.reserve(1)  # a request that is being decoded
        write_version(tmp_path, "a", 2)
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "2"
        result = await old.batcher.infer(np.zeros((1, 8, 8, 1), np.uint8))
        assert result.outputs.shape == (1, 4)
        shutil.rmtree(tmp_path / "a" / "2")
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "1"
        shutil.rmtree(tmp_path / "a")
        await registry.reconcile(DesiredState())
        with pytest.raises(UnknownModel):
            registry.get("a")
        await registry.close()

    asyncio.run(test())


@pytest.mark.parametrize("method", ["models", "versions"])
@pytest.mark.parametrize("is_replaced", [False, True], ids=["gone", "another one in its place"])
def test_a_root_that_disappears_while_it_is_read_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, is_replaced: bool
) -> None:
    root = tmp_path / "models"
    write_version(root, "a", 1)
    read = getattr(Repository, method)

    def replace_root_after_read(repository: Repository, *about: str) -> list[Any]:
        if (tmp_path / "elsewhere").exists():
            return list(read(repository, *about))
        root.rename(tmp_path / "elsewhere")
        names = list(read(repository, *about))
        if is_replaced:
            write_version(root, "a", 1)
        return names

    async def test() -> None:
        registry = registry_of(root)
        await registry.reconcile(DesiredState())
        monkeypatch.setattr(Repository, method, replace_root_after_read)
        await registry.reconcile(DesiredState())
        assert registry.get("a").version == "1"
        await registry.close()

    asyncio.run(test())


def replace(root: Path) -> DesiredState:
    write_version(root, "a", 2)
    return DesiredState()


def unload(root: Path) -> DesiredState:
    return state_with(loaded=False)


def delete(root: Path) -> DesiredState:
    shutil.rmtree(root / "a")
    return DesiredState()


@pytest.mark.parametrize("change", [replace, unload, delete])
def test_an_unloaded_version_frees_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], DesiredState]
) -> None:
    """The memory is freed without the garbage collector, which runs rarely, and is returned to the system."""
    sessions: list[weakref.ref[Session]] = []
    is_alive: list[bool] = []
    closed, collected = threading.Event(), threading.Event()

    def record_liveness() -> None:
        is_alive.append(not collected.wait(10))  # a thread of the version may be about to end
        closed.set()

    monkeypatch.setattr("service.malloc.trim", record_liveness)

    async def test() -> None:
        write_version(tmp_path, "a", 1)
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        sessions.append(weakref.ref(registry.get("a").session, lambda _: collected.set()))
        await registry.reconcile(change(tmp_path))
        assert await asyncio.to_thread(closed.wait, 20)
        await registry.close()

    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(test(), 30))
    finally:
        gc.enable()
    assert is_alive[0] is False


def test_a_label_alone_loads_nothing(tmp_path: Path) -> None:
    """The version would be loaded again and again, because without a default version the model is not served."""
    write_version(tmp_path, "a", 2)
    metrics = Metrics()
    registry = Registry(Repository(tmp_path), Settings(models=str(tmp_path)), metrics)
    asyncio.run(registry.reconcile(state_with(versions={"specific": [1]}, labels={"canary": 2})))
    assert versions(registry) == {}
    assert metrics.registry.get_sample_value("convoy_compute_seconds_count", {"model": "a"}) is None


@pytest.mark.parametrize("change", [unload, delete])
def test_a_removed_model_has_no_problems(tmp_path: Path, change: Callable[[Path], DesiredState]) -> None:
    async def test() -> None:
        (write_version(tmp_path, "a", 1) / "labels.txt").unlink()
        registry = registry_of(tmp_path)
        await registry.reconcile(DesiredState())
        with pytest.raises(BrokenModel):
            registry.get("a")
        await registry.reconcile(change(tmp_path))
        with pytest.raises(UnknownModel):
            registry.get("a")

    asyncio.run(test())


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
def test_a_root_that_vanishes_changes_nothing(tmp_path: Path, left: str) -> None:
    async def test() -> None:
        root = tmp_path / "models"
        write_version(root, "a", 1)
        registry = registry_of(root)
        await registry.reconcile(DesiredState())
        root.rename(tmp_path / "elsewhere")
        if left != "nothing":
            root.mkdir()
        for _ in range(3):
            await registry.reconcile(DesiredState())
            assert registry.get("a").version == "1"
        if left != "nothing":
            root.rmdir()
        (tmp_path / "elsewhere").rename(root)
        shutil.rmtree(root / "a")
        await registry.reconcile(DesiredState())
        assert versions(registry) == {}, "the root is back, and its last model was deleted"
        await registry.close()

    asyncio.run(test())


def test_the_batch_size_follows_the_latency_budget(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1, graph=slow_graph((8, 8, 1), 4, rounds=20))
    free, tight = loaded(tmp_path).get("a"), loaded(tmp_path, latency_budget_ms=0.001).get("a")
    assert list(free.batch_ms) == [1, 2, 4, 8, 16, 32]
    assert (free.max_batch_size, tight.max_batch_size) == (32, 1)


def test_a_quick_model_takes_larger_batches(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1)
    quick = loaded(tmp_path).get("a")
    assert list(quick.batch_ms) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert quick.max_batch_size == 128


def test_weight_is_niceness_of_the_models_threads(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1)
    one = loaded(tmp_path, state_with(weight=0.5, instances=2)).get("a")
    assert one.instances == 2
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    inside = one.executor.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
    assert inside == min(before + 3, 19), "the lowest priority"


def test_before_loading_nothing_is_known_yet(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    assert registry.not_ready_reasons() == {"service": "Models are loading."}
    with pytest.raises(NotReady, match=r"^Models are loading\.$"):
        registry.get("a")


def test_an_unknown_model_raises_unknown_model(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1)
    registry = loaded(tmp_path)
    for look_up in (registry.get, registry.model):
        with pytest.raises(UnknownModel, match="no model 'b'"):
            look_up("b")


def test_an_empty_folder_is_not_ready(tmp_path: Path) -> None:
    assert "Add a model as" in loaded(tmp_path / "missing").not_ready_reasons()["service"]
