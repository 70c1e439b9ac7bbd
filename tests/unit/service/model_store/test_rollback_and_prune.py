"""Rollback, its undoing and pruning, with the state file and with hidden folders."""

from pathlib import Path

import pytest

from service.errors import UnknownModel, UnknownVersion
from service.model_store.desired_state import ModelSpec, Specific, StateFile
from service.model_store.repository import Repository
from service.model_store.rollback_and_prune import FOLLOWS, prune_versions, roll_back, undo_rollback
from tests.support.model_versions import write_version


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    for version in (1, 2, 4):
        write_version(tmp_path / "models", "linear", version, seed=version)
    return Repository(tmp_path / "models")


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state" / "wanted.json")


def test_without_a_state_newer_folders_are_hidden_and_restored(repository: Repository) -> None:
    assert roll_back(repository, None, "linear", None) == f"linear is at version 2; withdrawn: 4. {FOLLOWS}"
    assert (repository.versions("linear"), repository.withdrawn_versions("linear")) == ([1, 2], [4])
    assert roll_back(repository, None, "linear", None) == f"linear is at version 1; withdrawn: 2. {FOLLOWS}"
    with pytest.raises(UnknownVersion, match="no version before 1"):
        roll_back(repository, None, "linear", None)
    assert undo_rollback(repository, None, "linear") == f"linear is at version 4; restored: 2, 4. {FOLLOWS}"
    assert (repository.versions("linear"), repository.withdrawn_versions("linear")) == ([1, 2, 4], [])
    assert repository.open("linear", 4).version == 4
    with pytest.raises(UnknownVersion, match="no withdrawn version"):
        undo_rollback(repository, None, "linear")


def test_undo_names_a_version_that_was_published_after_the_rollback(tmp_path: Path, repository: Repository) -> None:
    roll_back(repository, None, "linear", None)
    write_version(tmp_path / "models", "linear", 5)
    assert undo_rollback(repository, None, "linear") == f"linear is at version 5; restored: 4. {FOLLOWS}"


def test_with_a_state_the_folders_stay_and_the_spec_changes(repository: Repository, state: StateFile) -> None:
    state.update(lambda desired: desired.with_change("linear", labels={"canary": 4}, weight=0.5))
    assert roll_back(repository, state, "linear", None).startswith("linear: the desired version is now 2 (")
    assert state.read().spec_of("linear") == ModelSpec(
        versions=Specific(specific=[2]), labels={"canary": 4}, weight=0.5
    )
    roll_back(repository, state, "linear", None)  # the version before the current default
    assert state.read().spec_of("linear").versions == Specific(specific=[1])
    assert repository.versions("linear") == [1, 2, 4]
    undo_rollback(repository, state, "linear")
    assert state.read().spec_of("linear") == ModelSpec(labels={"canary": 4}, weight=0.5)


def test_a_rollback_to_what_is_missing_changes_nothing(repository: Repository, state: StateFile) -> None:
    with pytest.raises(UnknownVersion, match="no version 3; it has 1, 2, 4"):
        roll_back(repository, state, "linear", 3)
    with pytest.raises(UnknownModel, match="no model 'other'"):
        roll_back(repository, None, "other", None)
    assert not state.path.exists()
    assert repository.versions("linear") == [1, 2, 4]


def test_pruning_keeps_the_newest(repository: Repository) -> None:
    assert list(prune_versions(repository, None, "linear", 2)) == ["linear 1: removed"]
    assert repository.versions("linear") == [2, 4]
    assert [path.name for path in sorted((repository.root / "linear").iterdir())] == ["2", "4"]
    assert list(prune_versions(repository, None, "linear", 9)) == []


def test_pruning_keeps_what_the_state_asks_for(repository: Repository, state: StateFile) -> None:
    state.update(lambda desired: desired.with_change("linear", labels={"stable": 1}))
    kept, removed = prune_versions(repository, state, "linear", 1)
    assert (kept, removed) == ("linear 1: kept, the state file asks for it", "linear 2: removed")
    state.update(lambda desired: desired.with_change("linear", labels={}, versions={"specific": [1]}))
    assert list(prune_versions(repository, state, "linear", 1)) == [kept]
    state.update(lambda desired: desired.with_change("linear", versions={"latest": 2}))
    assert list(prune_versions(repository, state, "linear", 1)) == []
    state.update(lambda desired: desired.with_change("linear", versions="all"))
    assert list(prune_versions(repository, state, "linear", 1)) == [kept]


def test_folders_with_leading_zeros_keep_their_names(repository: Repository) -> None:
    (repository.root / "linear" / "4").rename(repository.root / "linear" / "0004")
    assert roll_back(repository, None, "linear", None) == f"linear is at version 2; withdrawn: 4. {FOLLOWS}"
    assert (repository.versions("linear"), repository.withdrawn_versions("linear")) == ([1, 2], [4])
    undo_rollback(repository, None, "linear")
    assert repository.version_names("linear") == ["0004", "1", "2"]
    (repository.root / "linear" / "1").rename(repository.root / "linear" / "01")
    assert list(prune_versions(repository, None, "linear", 2)) == ["linear 1: removed"]
    assert repository.version_names("linear") == ["0004", "2"]
