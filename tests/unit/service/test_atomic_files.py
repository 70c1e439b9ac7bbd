"""Files are replaced atomically, one process at a time holds a lock, and a change alters the fingerprint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.atomic_files import atomic_replace, atomic_write, file_fingerprint, file_lock, lock_exclusively

TRY_LOCK = "import sys, service.atomic_files as a; a.lock_exclusively(open(sys.argv[1]), wait=False)"


def test_the_new_content_replaces_the_old_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_an_error_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    atomic_write(path, b"old")

    def fail_halfway() -> None:
        with atomic_replace(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_an_error_before_anything_is_written_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "missing" / "state.json", b"new")


@pytest.mark.parametrize("durable", [False, True])
def test_only_durable_content_is_synced_and_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    path, existed = tmp_path / "r.csv", []
    monkeypatch.setattr(os, "fsync", lambda _: existed.append(path.exists()))
    with atomic_replace(path, durable=durable) as temporary:
        temporary.write_bytes(b"rows")
    assert existed == [False] * durable
    assert path.read_bytes() == b"rows"


def test_another_process_cannot_lock_until_the_lock_is_freed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    other = [sys.executable, "-c", TRY_LOCK, str(path)]
    with file_lock(path):
        assert b"BlockingIOError" in subprocess.run(other, capture_output=True, check=False).stderr
    subprocess.run(other, check=True)


def test_without_waiting_a_locked_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "r.part"
    with path.open("wb") as one, path.open("rb") as two:
        lock_exclusively(one)
        with pytest.raises(OSError, match="temporarily unavailable"):
            lock_exclusively(two, wait=False)


def test_every_replacement_changes_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert file_fingerprint(path) is None
    atomic_write(path, b"1")
    first = file_fingerprint(path)
    atomic_write(path, b"2")
    assert file_fingerprint(path) not in (None, first)
