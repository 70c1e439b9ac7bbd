"""Files are written completely or not at all, and errors name the file and the cause."""

import errno
from pathlib import Path

import pytest

from training.atomic_files import atomic_write, read_json, write_json
from training.errors import TrainingError


def test_a_file_is_replaced_completely(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    write_json(path, {"new": "ü"})
    assert read_json(path) == {"new": "ü"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TrainingError, match=r"a\.json could not be written: No space left on device"):
        atomic_write(path, fail)
    assert read_json(path) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def interrupt(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, interrupt)
    assert read_json(path) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_missing_and_damaged_json_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.json cannot be read: No such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(TrainingError, match=r"bad\.json is damaged"):
        read_json(tmp_path / "bad.json")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"new": "ü"}', encoding="utf-8-sig")
    assert read_json(tmp_path / "recipe.json") == {"new": "ü"}
