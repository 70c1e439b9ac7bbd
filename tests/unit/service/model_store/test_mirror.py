"""The mirror exposes only complete, verified versions, and keeps them through outages, damage and kills."""

import json
import logging
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model_store.mirror import BucketMirror, CannotMirror, default_cache_root
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectInfo, open_bucket
from tests.support.model_versions import write_version
from tests.unit.service.buckets import REMOTE_VERSIONS, FakeClock, WatchedBucket, local_versions


def test_the_bucket_is_in_the_folder_after_a_sync(mirror: BucketMirror, remote: Path) -> None:
    assert mirror.is_empty()
    assert mirror.sync() == mirror.folder
    assert local_versions(mirror) == REMOTE_VERSIONS
    assert not mirror.is_empty()
    assert (mirror.folder / "a" / "2" / "model.onnx").read_bytes() == (remote / "a" / "2" / "model.onnx").read_bytes()
    assert mirror.failures == {}


def test_unchanged_objects_are_not_read_again(mirror: BucketMirror, bucket: WatchedBucket, tmp_path: Path) -> None:
    mirror.sync()
    assert len(bucket.read) == 3 * 3
    mirror.sync()
    BucketMirror(bucket, tmp_path / "cache").sync()
    assert len(bucket.read) == 3 * 3
    assert bucket.listings == 3


def test_a_new_version_is_added_and_a_deleted_one_removed(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path
) -> None:
    mirror.sync()
    bucket.read.clear()
    write_version(remote, "a", 3)
    shutil.rmtree(remote / "a" / "1")
    shutil.rmtree(remote / "b")
    mirror.sync()
    assert local_versions(mirror) == {"a": [2, 3]}
    assert not (mirror.folder / "b").exists()
    assert {path.rpartition("/")[0] for path in bucket.read} == {"a/3"}


def test_an_edited_version_is_downloaded_again(mirror: BucketMirror, remote: Path) -> None:
    mirror.sync()
    shutil.rmtree(remote / "b" / "1")
    write_version(remote, "b", 1, seed=9)
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS
    assert (mirror.folder / "b" / "1" / "model.onnx").read_bytes() == (remote / "b" / "1" / "model.onnx").read_bytes()


def test_an_outage_changes_nothing_and_is_logged_once(
    mirror: BucketMirror, bucket: WatchedBucket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "convoy")
    mirror.sync()
    caplog.clear()
    bucket.is_down = True
    for _ in range(3):
        with pytest.raises(BucketUnreachable, match="is down") as raised:
            mirror.sync()
    assert "credentials" in raised.value.hint
    assert mirror.error == raised.value.message
    assert local_versions(mirror) == REMOTE_VERSIONS
    bucket.is_down = False
    mirror.sync()
    mirror.sync()
    assert mirror.error == ""
    messages = [record.message for record in caplog.records if record.name == "convoy"]
    assert messages == ["models cannot be fetched", "models can be fetched again"]


@pytest.mark.parametrize("what", ["emptied", "gone", "without versions"])
def test_an_empty_bucket_is_taken_for_an_outage(mirror: BucketMirror, remote: Path, what: str) -> None:
    mirror.sync()
    shutil.rmtree(remote)
    if what != "gone":
        remote.mkdir()
    if what == "without versions":
        (remote / "readme.txt").write_text("moved")
    with pytest.raises(BucketUnreachable):
        mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS


def test_a_lost_connection_publishes_no_partial_version(
    mirror: BucketMirror, bucket: WatchedBucket, clock: FakeClock
) -> None:
    bucket.truncated_path = "a/1/model.onnx"
    mirror.sync()
    assert local_versions(mirror) == {"a": [2], "b": [1]}
    assert mirror.failures == {"a/1": "the connection is lost."}
    assert not list((mirror.folder / ".fetching").iterdir())
    bucket.truncated_path = ""
    clock.now_s += 10
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS


HALTING_SYNC = """
import sys, time
from pathlib import Path
from service.model_store.object_store import Bucket, open_bucket
from service.model_store.mirror import BucketMirror

class Slow(Bucket):
    def chunks(self, path, size_bytes=None):
        for chunk in super().chunks(path):
            yield chunk[:10]
            if path == "b/1/model.onnx":
                print("half", flush=True)
                time.sleep(60)
            yield chunk[10:]

opened = open_bucket(sys.argv[1])
opened.__class__ = Slow
BucketMirror(opened, Path(sys.argv[2])).sync()
"""


def test_files_of_a_killed_process_are_ignored_and_removed(mirror: BucketMirror, remote: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HALTING_SYNC, f"file://{remote}", str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert list((mirror.folder / ".fetching").rglob("model.onnx"))
    assert "b" not in local_versions(mirror)
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS
    assert not list((mirror.folder / ".fetching").iterdir())


def test_a_sync_of_another_process_is_reused(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, tmp_path: Path
) -> None:
    other = BucketMirror(bucket, tmp_path / "cache")
    mirror.sync()
    other.sync()
    (write_version(remote, "a", 3) / "labels.txt").write_text("x")
    other.sync()
    assert bucket.listings == 3
    mirror.sync()
    assert bucket.listings == 3
    assert mirror.failures.keys() == other.failures.keys() == {"a/3"}
    bucket.is_down = True
    with pytest.raises(BucketUnreachable):
        mirror.sync()
    with pytest.raises(BucketUnreachable, match="is down"):
        other.sync()
    assert bucket.listings == 4


def test_only_one_process_downloads_at_a_time(remote: Path, tmp_path: Path) -> None:
    class BlockingBucket(WatchedBucket):
        concurrent = 0
        max_concurrent = 0
        released = threading.Event()
        entered = threading.Event()

        def listing(self) -> dict[str, ObjectInfo]:
            BlockingBucket.concurrent += 1
            BlockingBucket.max_concurrent = max(BlockingBucket.concurrent, BlockingBucket.max_concurrent)
            self.entered.set()
            assert self.released.wait(10)
            BlockingBucket.concurrent -= 1
            return super().listing()

    mirrors = [BucketMirror(BlockingBucket(remote), tmp_path / "cache") for _ in range(3)]
    threads = [threading.Thread(target=mirror.sync) for mirror in mirrors]
    for thread in threads:
        thread.start()
    assert BlockingBucket.entered.wait(10)
    threads[0].join(0.1)
    assert [thread.is_alive() for thread in threads] == [True] * 3
    BlockingBucket.released.set()
    for thread in threads:
        thread.join(10)
    assert BlockingBucket.max_concurrent == 1
    assert local_versions(mirrors[0]) == REMOTE_VERSIONS


class FakeBucket(Bucket):
    """A bucket with a given listing. Every object is an empty JSON object."""

    def __init__(self, paths: list[str]) -> None:
        self.url = "s3://named"
        self._paths = paths

    def listing(self) -> dict[str, ObjectInfo]:
        return {path: ObjectInfo(2, "1") for path in self._paths}

    def chunks(self, path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        yield b"{}"


PARTS = st.sampled_from(["..", ".", "", "a", "1", "01", "0", "-a", "a b", ".work", ".lock", "a\n", "manifest.json"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(PARTS | st.text(max_size=5), min_size=1, max_size=5).map("/".join), max_size=20))
def test_no_name_leads_out_of_the_folder(paths: list[str]) -> None:
    with TemporaryDirectory() as folder:
        mirror = BucketMirror(FakeBucket([*paths, "a/1/manifest.json", "../a/1/manifest.json"]), Path(folder) / "cache")
        mirror.sync()
        files = {path for path in Path(folder).rglob("*") if path.is_file()}
    assert files == {mirror.folder / ".lock", mirror.folder / ".state.json"}
    assert "a/1" in mirror.failures
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*/[1-9][0-9]*", where) for where in mirror.failures)


def test_a_folder_that_cannot_be_written_is_reported(bucket: WatchedBucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotMirror, match="cannot be written: Not a directory") as raised:
        BucketMirror(bucket, tmp_path / "file").sync()
    assert "CONVOY_BUCKET_CACHE" in raised.value.hint


def test_every_url_has_its_own_folder(tmp_path: Path) -> None:
    names = {BucketMirror(open_bucket(f"file://{name}"), tmp_path).folder.name for name in ("/a/b", "/a-b", "/a/b/")}
    assert len(names) == 2
    assert all(name.startswith("file-a-b-") for name in names)


def test_the_cache_is_in_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_root() == tmp_path / "convoy" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache_root() == Path("/home/somebody/.cache/convoy/models")


def test_every_process_reports_a_broken_version(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "convoy")
    (remote / "a" / "2" / "labels.txt").write_text("x")
    mirror.sync()
    mirror.sync()
    assert [record.message for record in caplog.records if record.name == "convoy"] == ["version cannot be fetched"]
    BucketMirror(bucket, tmp_path / "cache").sync()
    assert [record.message for record in caplog.records if record.name == "convoy"] == ["version cannot be fetched"] * 2
    assert json.loads((mirror.folder / ".state.json").read_text())["failures"].keys() == {"a/2"}
