"""A full cache disk blocks neither removals nor other versions, and new versions are downloaded as soon as there is
space."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.atomic_files import file_fingerprint
from service.model_store.bucket_cache import MIN_FREE_BYTES, BucketCache
from service.model_store.mirror import BucketMirror, CannotMirror
from service.model_store.object_store import BucketUnreachable
from service.model_store.repository import Repository
from tests.support.model_versions import write_version
from tests.unit.service.buckets import REMOTE_VERSIONS, FakeClock, WatchedBucket, local_versions


class SmallDisk:
    """A disk with space for `total_bytes` of versions, including those in the cache."""

    def __init__(self, cache: Path, total_bytes: int) -> None:
        self._cache = cache
        self.total_bytes = total_bytes

    def statvfs(self, _: object) -> os.statvfs_result:
        # Other threads remove folders at the same time, so `walk` skips deleted folders.
        paths = [Path(folder, file) for folder, _, files in os.walk(self._cache) for file in files]
        graphs = [file_fingerprint(path) for path in paths if path.suffix == ".onnx"]
        used_bytes = sum(graph.size_bytes for graph in graphs if graph is not None)
        free_bytes = self.total_bytes - used_bytes + MIN_FREE_BYTES
        return os.statvfs_result((1, 1, 0, 0, free_bytes, 0, 0, 0, 0, 0))


GRAPH_BYTES = 40_000


@pytest.fixture
def disk(mirror: BucketMirror, monkeypatch: pytest.MonkeyPatch) -> SmallDisk:
    disk = SmallDisk(mirror.folder, 10 * GRAPH_BYTES)
    monkeypatch.setattr("service.model_store.bucket_cache.os.statvfs", disk.statvfs)
    return disk


def write_large_version(root: Path, model: str, version: int, *, classes: int = 100, seed: int = 0) -> Path:
    """Writes a version whose graph has GRAPH_BYTES per 100 classes, and returns its folder."""
    folder = write_version(root, model, version, shape=(10, 10, 1), classes=classes, seed=seed)
    assert 1 < (folder / "model.onnx").stat().st_size / (GRAPH_BYTES * classes / 100) < 1.1
    return folder


def test_free_space_is_checked_before_a_download(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, disk: SmallDisk
) -> None:
    write_large_version(remote, "large", 1)
    disk.total_bytes = GRAPH_BYTES
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS
    assert "free bytes" in mirror.failures["large/1"]
    assert "large/1/model.onnx" not in bucket.read
    bucket.read.clear()
    mirror.sync()
    assert not bucket.read
    disk.total_bytes = 2 * GRAPH_BYTES
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS | {"large": [1]}, "there is space, so the pause is skipped"


def test_removed_versions_free_space_and_a_full_disk_does_not_block_a_rollback(
    mirror: BucketMirror, remote: Path, disk: SmallDisk
) -> None:
    write_large_version(remote, "large", 1)
    disk.total_bytes = round(1.5 * GRAPH_BYTES)
    mirror.sync()
    write_large_version(remote, "other", 1)
    shutil.rmtree(remote / "a" / "2")
    mirror.sync()
    assert local_versions(mirror) == {"a": [1], "b": [1], "large": [1]}
    assert mirror.failures.keys() == {"other/1"}
    shutil.rmtree(remote / "large")
    mirror.sync()
    assert local_versions(mirror) == {"a": [1], "b": [1], "other": [1]}


def test_a_version_is_kept_until_its_successor_is_downloaded(
    mirror: BucketMirror, remote: Path, disk: SmallDisk
) -> None:
    """The exception is a disk without space for both."""
    mirror.sync()
    shutil.rmtree(remote / "b" / "1")
    write_large_version(remote, "b", 2)
    seen: list[bool] = []
    sound = BucketCache.publish

    def publish(cache: BucketCache, fetched: Path, version_path: str) -> None:
        seen.append((mirror.folder / "b" / "1").exists())
        sound(cache, fetched, version_path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BucketCache, "publish", publish)
        mirror.sync()
        assert seen == [True]
        assert local_versions(mirror)["b"] == [2]
        shutil.rmtree(remote / "b" / "2")
        write_large_version(remote, "b", 3)
        disk.total_bytes = round(1.5 * GRAPH_BYTES)
        mirror.sync()
    assert local_versions(mirror)["b"] == [3]


@pytest.mark.parametrize("fault", ["unreachable", "broken", "outage", "no room in spite of it"])
def test_the_last_version_of_a_model_is_kept_while_its_successor_cannot_be_downloaded(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, clock: FakeClock, disk: SmallDisk, fault: str
) -> None:
    write_version(remote, "a", 3)
    mirror.sync()
    shutil.rmtree(remote / "a")
    write_large_version(remote, "a", 4)
    if fault == "broken":
        (remote / "a" / "4" / "labels.txt").write_text("x")
    elif fault == "no room in spite of it":
        disk.total_bytes = GRAPH_BYTES // 2
    else:
        bucket.lost_prefixes = ("a/4/",)
    if fault == "outage":
        for version in range(1, 101):
            write_version(remote, "many", version)
        bucket.lost_prefixes = ("",)
    for _ in range(3):
        try:
            mirror.sync()
        except BucketUnreachable:
            assert fault == "outage"
        assert local_versions(mirror) == {"a": [3], "b": [1]}
        clock.now_s += 1000
    bucket.lost_prefixes, disk.total_bytes = (), 10 * GRAPH_BYTES
    shutil.rmtree(remote / "a" / "4")
    write_large_version(remote, "a", 4)
    clock.now_s += 4000
    mirror.sync()
    assert local_versions(mirror)["a"] == [4]


def test_the_last_version_of_a_model_does_not_make_room_for_another_model(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, disk: SmallDisk
) -> None:
    write_large_version(remote, "large", 1)
    disk.total_bytes = round(1.5 * GRAPH_BYTES)
    mirror.sync()
    shutil.rmtree(remote / "large" / "1")
    write_version(remote, "large", 2)
    write_large_version(remote, "other", 1)
    bucket.lost_prefixes = ("large/2/",)
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS | {"large": [1]}


@pytest.mark.parametrize("number", [28, 122])
def test_a_disk_that_fills_up_while_a_version_is_downloaded_leaves_nothing_half(
    mirror: BucketMirror, bucket: WatchedBucket, clock: FakeClock, number: int
) -> None:
    """The disk reports free space, as with a quota, so the version must not be downloaded again in each sync."""
    sound, attempts = bucket.chunks, []

    def fill_disk(path: str, size_bytes: int | None = None) -> object:
        if path == "a/2/model.onnx":
            attempts.append(path)
            raise OSError(number, "No space left on device")
        return sound(path)

    bucket.chunks = fill_disk  # type: ignore[method-assign, assignment]
    for _ in range(3):
        mirror.sync()
    assert len(attempts) == 1
    assert "No space left on device" in mirror.failures["a/2"]
    assert local_versions(mirror) == {"a": [1], "b": [1]}
    bucket.chunks = sound  # type: ignore[method-assign]
    clock.now_s += 10
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS


def test_a_disk_that_another_program_has_filled_is_used_as_soon_as_there_is_room(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, disk: SmallDisk
) -> None:
    write_large_version(remote, "large", 1)
    sound = bucket.chunks

    def fill_disk(path: str, size_bytes: int | None = None) -> object:
        if path == "large/1/model.onnx":
            disk.total_bytes = GRAPH_BYTES // 2
            raise OSError(28, "No space left on device")
        return sound(path)

    bucket.chunks = fill_disk  # type: ignore[method-assign, assignment]
    mirror.sync()
    bucket.read.clear()
    bucket.chunks = sound  # type: ignore[method-assign]
    mirror.sync()
    # The other versions were fetched at the same time, and may have found the disk full as well.
    assert [path for path in bucket.read if path.startswith("large/")] == []
    disk.total_bytes = 10 * GRAPH_BYTES
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS | {"large": [1]}


def test_a_disk_error_is_an_error_of_the_cache(mirror: BucketMirror, bucket: WatchedBucket) -> None:
    def fail(path: str, size_bytes: int | None = None) -> object:
        raise OSError(5, "Input/output error")

    bucket.chunks = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(CannotMirror, match="Input/output error"):
        mirror.sync()
    assert local_versions(mirror) == {}


def replace_version(remote: Path, model: str, version: int, **options: Any) -> Path:
    """Writes other content under the same number. Returns the graph that a cache must contain then."""
    shutil.rmtree(remote / model / str(version))
    return write_large_version(remote, model, version, **options) / "model.onnx"


def cached_graph(mirror: BucketMirror, version_path: str) -> bytes | None:
    """Returns None for a version whose files were evicted."""
    graph = mirror.folder / version_path / "model.onnx"
    return graph.read_bytes() if graph.exists() else None


@pytest.mark.parametrize(("total_graphs", "graph_while_fetching"), [(2.5, "old"), (1.5, "none")])
def test_a_version_replaced_in_place_keeps_its_old_content_only_if_both_fit(
    mirror: BucketMirror,
    bucket: WatchedBucket,
    remote: Path,
    disk: SmallDisk,
    total_graphs: float,
    graph_while_fetching: str,
) -> None:
    """The evicted version keeps its folder, so that the service does not unload the content that it has loaded."""
    write_large_version(remote, "large", 1)
    mirror.sync()
    old_graph = cached_graph(mirror, "large/1")
    new_graph = replace_version(remote, "large", 1, seed=9)
    disk.total_bytes = round(total_graphs * GRAPH_BYTES)
    seen: list[tuple[bytes | None, list[int]]] = []
    sound = bucket.chunks

    def chunks(path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        if path == "large/1/model.onnx":
            seen.append((cached_graph(mirror, "large/1"), Repository(mirror.folder).versions("large")))
        return sound(path, size_bytes)

    bucket.chunks = chunks  # type: ignore[method-assign]
    mirror.sync()
    assert seen == [(old_graph if graph_while_fetching == "old" else None, [1])]
    assert cached_graph(mirror, "large/1") == new_graph.read_bytes() != old_graph
    assert (local_versions(mirror), mirror.failures) == (REMOTE_VERSIONS | {"large": [1]}, {})


@pytest.mark.parametrize(
    ("classes", "total_graphs"), [(300, 1.5), (100, 0.9)], ids=["too large", "disk filled by others"]
)
def test_old_content_is_not_evicted_for_new_content_that_would_not_fit_either(
    mirror: BucketMirror, remote: Path, disk: SmallDisk, classes: int, total_graphs: float
) -> None:
    write_large_version(remote, "large", 1)
    mirror.sync()
    old_graph = cached_graph(mirror, "large/1")
    replace_version(remote, "large", 1, classes=classes, seed=9)
    disk.total_bytes = round(total_graphs * GRAPH_BYTES)
    mirror.sync()
    assert cached_graph(mirror, "large/1") == old_graph
    assert "free bytes" in mirror.failures["large/1"]


def test_two_versions_replaced_in_place_do_not_count_the_same_free_space(
    mirror: BucketMirror, remote: Path, disk: SmallDisk
) -> None:
    """Each version would fit without its own old content, but not both. The second one keeps its old content."""
    for model in ("one", "two"):
        write_large_version(remote, model, 1)
    mirror.sync()
    old_graphs = {path: cached_graph(mirror, path) for path in ("one/1", "two/1")}
    for model in ("one", "two"):
        replace_version(remote, model, 1, classes=150)
    disk.total_bytes = round(2.75 * GRAPH_BYTES)
    mirror.sync()
    [failed] = mirror.failures
    assert cached_graph(mirror, failed) == old_graphs[failed]
    assert local_versions(mirror).keys() == {"a", "b", "one", "two"}


def test_content_replaced_in_the_same_sync_is_removed_before_served_content(
    mirror: BucketMirror, remote: Path, disk: SmallDisk
) -> None:
    for model in ("one", "two"):
        write_large_version(remote, model, 1)
    mirror.sync()
    for model in ("one", "two"):
        replace_version(remote, model, 1, seed=9)
    disk.total_bytes = round(3.5 * GRAPH_BYTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BucketCache, "evict", lambda cache, path: pytest.fail(f"{path} is evicted"))
        mirror.sync()
    assert mirror.failures == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_old_content_is_evicted_if_a_retry_exceeds_a_quota(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, clock: FakeClock, number: int
) -> None:
    write_large_version(remote, "large", 1)
    mirror.sync()
    old_graph = cached_graph(mirror, "large/1")
    new_graph = replace_version(remote, "large", 1, seed=9)
    sound = bucket.chunks

    def exceed_quota(path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        if path == "large/1/model.onnx" and cached_graph(mirror, "large/1"):
            raise OSError(number, "No space left on device")
        return sound(path, size_bytes)

    bucket.chunks = exceed_quota  # type: ignore[method-assign]
    mirror.sync()
    assert cached_graph(mirror, "large/1") == old_graph
    clock.now_s += 10
    mirror.sync()
    assert cached_graph(mirror, "large/1") == new_graph.read_bytes()
    assert mirror.failures == {}


def test_an_evicted_version_is_restored_after_a_failed_download(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, disk: SmallDisk, clock: FakeClock
) -> None:
    """Meanwhile an older version of the model is kept, even if it is removed from the bucket."""
    write_version(remote, "large", 1)
    write_large_version(remote, "large", 2)
    mirror.sync()
    new_graph = replace_version(remote, "large", 2, seed=9)
    disk.total_bytes = round(1.5 * GRAPH_BYTES)
    sound = bucket.chunks

    def lose_connection(path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        if path == "large/2/model.onnx":
            raise BucketUnreachable("the connection is lost.")
        return sound(path, size_bytes)

    bucket.chunks = lose_connection  # type: ignore[method-assign]
    mirror.sync()
    assert cached_graph(mirror, "large/2") is None
    shutil.rmtree(remote / "large" / "1")
    mirror.sync()
    assert Repository(mirror.folder).versions("large") == [1, 2]
    bucket.chunks = sound  # type: ignore[method-assign]
    clock.now_s += 20
    mirror.sync()
    assert cached_graph(mirror, "large/2") == new_graph.read_bytes()
    assert local_versions(mirror) == REMOTE_VERSIONS | {"large": [2]}
