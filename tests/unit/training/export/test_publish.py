"""A version folder appears complete with the next number, or no folder is left behind."""

import errno
from pathlib import Path

import pytest

from training.errors import RetryLater, TrainingError
from training.export.publish import publish


def write(folder: Path, version: int) -> None:
    (folder / "card.md").write_text(f"version {version}")


def all_paths(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_the_first_version_is_1_and_the_next_follows_the_highest(tmp_path: Path) -> None:
    assert publish(tmp_path / "models", "digits", write) == tmp_path / "models" / "digits" / "1"
    (tmp_path / "models" / "digits" / "9").mkdir()
    (tmp_path / "models" / "digits" / "notes").mkdir()
    folder = publish(tmp_path / "models", "digits", write)
    assert folder.name == "10"
    assert (folder / "card.md").read_text() == "version 10"


def test_the_folder_is_hidden_while_it_is_written(tmp_path: Path) -> None:
    observed = []
    publish(
        tmp_path,
        "digits",
        lambda folder, version: observed.append((folder.name, folder.parent)) or write(folder, version),
    )
    [(name, parent)] = observed
    assert name.startswith(".")
    assert parent == tmp_path / "digits"
    assert all_paths(tmp_path) == ["digits", "digits/1", "digits/1/card.md"]


@pytest.mark.parametrize("error", [TrainingError("no parity"), KeyboardInterrupt(), RuntimeError("bug")])
def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(folder: Path, version: int) -> None:
        write(folder, version)
        raise error

    with pytest.raises(type(error)):
        publish(tmp_path / "new" / "models", "digits", fail)
    assert all_paths(tmp_path) == []
    publish(tmp_path, "digits", write)
    before = all_paths(tmp_path)
    with pytest.raises(type(error)):
        publish(tmp_path, "digits", fail)
    assert all_paths(tmp_path) == before


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    def fail(folder: Path, version: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RetryLater, match="digits could not be written: No space left on device"):
        publish(tmp_path, "digits", fail)
    assert all_paths(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b", "x" * 65])
def test_names_that_cannot_be_served_are_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match="is not a valid model name"):
        publish(tmp_path, name, write)
    assert all_paths(tmp_path) == []
