"""The registry: which versions are loaded, which answers by default, and why something does not."""

import asyncio
from pathlib import Path

import pytest

from service.errors import NotReady, UnknownModel, UnknownVersion
from service.metrics import Metrics
from service.registry import Registry
from service.repository import Repository
from service.settings import Settings
from tests.versions import write_version


def registry_of(root: Path, **settings: int) -> Registry:
    return Registry(Repository(root), Settings(models=root, **settings), Metrics())  # type: ignore[arg-type]


def loaded(root: Path, only: str | None = None, version: str | None = None, **settings: int) -> Registry:
    registry = registry_of(root, **settings)
    asyncio.run(registry.load(only, version))
    return registry


def versions(registry: Registry) -> dict[str, list[str]]:
    return {served[0].model: [s.version for s in served] for served in registry.all()}


def test_the_newest_version_is_loaded_and_answers(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        write_version(tmp_path, "a", version)
    write_version(tmp_path, "b", 3)
    registry = loaded(tmp_path)
    assert versions(registry) == {"a": ["10"], "b": ["3"]}
    assert registry.get("a").version == "10"
    assert registry.get("a", "10") is registry.get("a")
    assert registry.not_ready_because() == {}


def test_several_versions_where_they_are_wanted(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        write_version(tmp_path, "a", version)
    registry = loaded(tmp_path, latest_versions=2)
    assert versions(registry) == {"a": ["10", "2"]}
    assert registry.get("a", "2").version == "2"
    with pytest.raises(UnknownVersion, match="no version '1' loaded"):
        registry.get("a", "1")


def test_one_model_or_one_version_alone(tmp_path: Path) -> None:
    for version in (1, 2):
        write_version(tmp_path, "a", version)
    write_version(tmp_path, "b", 1)
    assert versions(loaded(tmp_path, only="a")) == {"a": ["2"]}
    assert versions(loaded(tmp_path, only="a", version="1")) == {"a": ["1"]}


def test_a_broken_version_gives_way_to_the_one_before(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1)
    (write_version(tmp_path, "a", 2) / "labels.txt").write_text("other\n")
    registry = loaded(tmp_path)
    assert registry.get("a").version == "1"
    assert registry.not_ready_because() == {}


def test_a_model_without_any_good_version_says_why(tmp_path: Path) -> None:
    (write_version(tmp_path, "a", 1) / "model.onnx").unlink()
    registry = loaded(tmp_path)
    assert "model.onnx cannot be read" in registry.not_ready_because()["a"]
    with pytest.raises(NotReady, match=r"model\.onnx cannot be read"):
        registry.get("a")


def test_before_loading_nothing_is_known_yet(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    assert registry.not_ready_because() == {"service": "Models are loading."}
    with pytest.raises(NotReady):
        registry.get("a")


def test_an_unknown_model_is_told_apart(tmp_path: Path) -> None:
    write_version(tmp_path, "a", 1)
    with pytest.raises(UnknownModel, match="no model 'b'"):
        loaded(tmp_path).get("b")


def test_an_empty_folder_is_not_ready(tmp_path: Path) -> None:
    assert "put one there" in loaded(tmp_path / "missing").not_ready_because()["service"]
