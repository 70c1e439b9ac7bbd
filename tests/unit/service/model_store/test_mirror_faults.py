"""A version that cannot be fetched, or a full disk, does not block other versions of a bucket.

The mirror recovers automatically afterwards.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.errors import BrokenVersion, ConvoyError, VersionUnavailable
from service.model_store.bucket_cache import BucketCache
from service.model_store.fetch_round import MAX_UNREACHABLE
from service.model_store.mirror import BucketMirror
from service.model_store.object_store import BucketDenied, BucketUnreachable, ObjectInfo
from service.model_store.repository import Repository
from tests.support.model_versions import write_version
from tests.unit.service.buckets import REMOTE_VERSIONS, FakeClock, WatchedBucket, local_versions, replace_file


def test_a_version_that_cannot_be_reached_stops_no_other(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path
) -> None:
    """This covers new versions of the same model and of other models, and deletions."""
    mirror.sync()
    write_version(remote, "a", 3)
    write_version(remote, "a", 4)
    write_version(remote, "c", 1)
    shutil.rmtree(remote / "b")
    bucket.lost_prefixes = ("a/4/",)
    mirror.sync()
    assert local_versions(mirror) == {"a": [1, 2, 3], "c": [1]}
    assert mirror.failures == {"a/4": "a/4/manifest.json does not answer."}
    assert mirror.error == ""


def test_the_pauses_before_retries_grow_and_outlast_a_restart(
    mirror: BucketMirror, bucket: WatchedBucket, clock: FakeClock, tmp_path: Path
) -> None:
    start_s = clock.now_s
    attempts_s = []
    bucket.lost_prefixes = ("a/2/",)
    for second in range(0, 1900, 10):
        clock.now_s = start_s + second
        if second == 50:
            mirror = BucketMirror(bucket, tmp_path / "cache", clock)
        bucket.read.clear()
        mirror.sync()
        if "a/2/manifest.json" in bucket.read:
            attempts_s.append(second)
    assert attempts_s == [0, 10, 30, 70, 150, 310, 610, 910, 1210, 1510, 1810]


def test_a_changed_version_is_retried_at_once(mirror: BucketMirror, bucket: WatchedBucket, remote: Path) -> None:
    bucket.lost_prefixes = ("a/2/model.onnx",)
    mirror.sync()
    bucket.lost_prefixes = ()
    replace_file(remote / "a" / "2" / "card.md", b"# Uploaded again")
    mirror.sync()
    assert (local_versions(mirror), mirror.failures) == (REMOTE_VERSIONS, {})


def test_a_wrong_checksum_is_retried_too(mirror: BucketMirror, bucket: WatchedBucket, clock: FakeClock) -> None:
    """A proxy may have damaged the bytes, and the listing does not change when the proxy works again."""
    sound, damaged = bucket.chunks, iter([b"x" * 32])

    def damage(path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        return damaged if path == "a/2/labels.txt" else sound(path)

    bucket.chunks = damage  # type: ignore[method-assign]
    mirror.sync()
    assert "labels.txt has sha256" in mirror.failures["a/2"]
    bucket.chunks = sound  # type: ignore[method-assign]
    mirror.sync()
    assert "a/2" in mirror.failures
    clock.now_s += 10
    mirror.sync()
    assert (local_versions(mirror), mirror.failures) == (REMOTE_VERSIONS, {})


def test_a_clock_that_was_set_back_does_not_end_the_retries(
    mirror: BucketMirror, bucket: WatchedBucket, clock: FakeClock
) -> None:
    bucket.lost_prefixes = ("a/2/",)
    mirror.sync()
    bucket.lost_prefixes = ()
    clock.now_s -= 1_000_000
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS


def test_a_bucket_whose_objects_all_hang_is_an_outage_and_not_tried_to_its_end(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, clock: FakeClock
) -> None:
    for version in range(1, 101):
        write_version(remote, "many", version)
    bucket.lost_prefixes = ("a/", "b/", "many/")
    with pytest.raises(BucketUnreachable, match="does not answer"):
        mirror.sync()
    assert MAX_UNREACHABLE <= len(bucket.read) < 3 * MAX_UNREACHABLE
    bucket.lost_prefixes = ()
    clock.now_s += 10
    mirror.sync()
    assert len(local_versions(mirror)["many"]) == 100
    assert mirror.error == ""


@pytest.mark.parametrize("fetched", ["in the same round", "before"])
def test_many_unreachable_versions_are_not_an_outage_while_others_are_reachable(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, clock: FakeClock, fetched: str
) -> None:
    if fetched == "before":
        mirror.sync()
    for version in range(1, 101):
        write_version(remote, "many", version)
    if fetched != "before":
        write_version(remote, "a", 1000)  # tried first
    clock.now_s += 60
    bucket.lost_prefixes = ("many/",)
    mirror.sync()
    assert len(mirror.failures) == 100
    assert mirror.error == ""
    assert mirror.synced_at_s == clock.now_s


def test_a_bucket_that_is_lost_while_versions_are_downloaded_is_an_outage(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outage is detected by the listing, not by the timeouts of all versions."""
    for version in range(1, 101):
        write_version(remote, "many", version)
    sound, is_lost = bucket.chunks, threading.Event()

    def chunks(path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        if path.startswith(("a/", "b/", "many/100/")):
            return sound(path)
        bucket.is_down = True
        bucket.read.append(path)
        assert is_lost.wait(30)
        raise BucketUnreachable(f"{path} does not answer.")

    def listing() -> dict[str, ObjectInfo]:
        if bucket.is_down:
            threading.Timer(0.01, is_lost.set).start()
        return sound_listing()

    sound_listing = bucket.listing
    bucket.chunks, bucket.listing = chunks, listing  # type: ignore[method-assign]
    monkeypatch.setattr("service.model_store.fetch_round.RELISTING_INTERVAL_S", 0.001)
    with pytest.raises(BucketUnreachable, match="the bucket is down"):
        mirror.sync()
    assert len({path for path in bucket.read if path.startswith("many/")}) < 50


def test_a_deleted_version_is_removed_with_its_model_or_once_another_is_cached(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path
) -> None:
    mirror.sync()
    shutil.rmtree(remote / "a" / "2")
    write_version(remote, "a", 3)
    shutil.rmtree(remote / "b")
    bucket.lost_prefixes = ("a/3/",)
    mirror.sync()
    assert local_versions(mirror) == {"a": [1]}


def test_a_version_that_is_gone_does_not_answer_a_job_for_one_that_cannot_be_downloaded(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path
) -> None:
    shutil.rmtree(remote / "a" / "1")
    mirror.sync()
    shutil.rmtree(remote / "a" / "2")
    write_version(remote, "a", 1)
    bucket.lost_prefixes = ("a/1/",)
    mirror.sync()
    assert local_versions(mirror)["a"] == [2]
    with pytest.raises(VersionUnavailable, match="a/1 cannot be fetched"):
        mirror.check_fetched("a", None)
    mirror.check_fetched("a", "2")


def test_every_error_is_counted_by_its_code_and_by_the_process_that_met_it(
    bucket: WatchedBucket, remote: Path, tmp_path: Path, clock: FakeClock
) -> None:
    codes: list[str] = []
    mirror = BucketMirror(bucket, tmp_path / "cache", clock, codes.append)
    mirror.sync()
    other_codes: list[str] = []
    other = BucketMirror(bucket, tmp_path / "cache", clock, other_codes.append)
    other.sync()
    mirror.sync()
    for version in ("3", "4"):
        write_version(remote, "a", int(version))
    bucket.lost_prefixes, bucket.forbidden_path = ("a/3/",), "a/4/manifest.json"
    (write_version(remote, "c", 1) / "labels.txt").write_text("x")
    mirror.sync()
    assert sorted(codes) == ["broken_version", "bucket_unreachable", "object_refused"]
    other.sync()
    assert other_codes == []
    assert other.failures.keys() == mirror.failures.keys()
    bucket.is_down = True
    with pytest.raises(BucketUnreachable):
        mirror.sync()
    assert codes[3:] == ["bucket_unreachable"]


def test_the_time_of_the_last_complete_sync_is_known(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, clock: FakeClock, tmp_path: Path
) -> None:
    assert mirror.synced_at_s == 0
    synced_at_s = clock.now_s
    mirror.sync()
    clock.now_s += 60
    bucket.is_down = True
    with pytest.raises(BucketUnreachable):
        mirror.sync()
    restarted = BucketMirror(bucket, tmp_path / "cache", clock)
    with pytest.raises(BucketUnreachable):
        restarted.sync()
    assert mirror.synced_at_s == restarted.synced_at_s == synced_at_s
    bucket.is_down = False
    bucket.lost_prefixes = ("a/3/",)
    write_version(remote, "a", 3)
    restarted.sync()
    assert restarted.failures.keys() == {"a/3"}
    assert restarted.synced_at_s == clock.now_s, "one failing version is not an outage"


def during_every_file_system_call(mirror: BucketMirror, check: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    for name in ("rename", "replace", "unlink", "rmdir", "symlink_to", "mkdir"):
        sound = getattr(Path, name)

        def call(path: Path, *args: object, sound: Callable[..., object] = sound, **options: object) -> object:
            check()
            result = sound(path, *args, **options)
            check()
            return result

        patch.setattr(Path, name, call)
    mirror.sync()


@pytest.mark.parametrize("is_link", [True, False])
def test_an_edited_version_is_always_readable(
    mirror: BucketMirror, remote: Path, monkeypatch: pytest.MonkeyPatch, is_link: bool
) -> None:
    """At any time a reader sees either the old or the new content."""
    mirror.sync()
    if not is_link:  # as earlier releases downloaded it
        content = (mirror.folder / "b" / "1").resolve()
        (mirror.folder / "b" / "1").unlink()
        content.rename(mirror.folder / "b" / "1")
    shutil.rmtree(remote / "b" / "1")
    write_version(remote, "b", 1, seed=9)
    seen: list[list[int]] = []
    during_every_file_system_call(mirror, lambda: seen.append(Repository(mirror.folder).versions("b")), monkeypatch)
    monkeypatch.undo()
    assert len(seen) > 4
    if is_link:
        assert seen == [[1]] * len(seen)
    assert (mirror.folder / "b" / "1" / "model.onnx").read_bytes() == (remote / "b" / "1" / "model.onnx").read_bytes()
    mirror.sync()
    assert len(list((mirror.folder / ".content").iterdir())) == 3, "replaced content goes with the next sync"
    assert local_versions(mirror) == REMOTE_VERSIONS


@pytest.mark.parametrize(
    ("version", "error", "message"),
    [
        (None, VersionUnavailable, "a/4 cannot be fetched: a/4/manifest.json does not answer"),
        ("4", VersionUnavailable, "a/4 cannot be fetched"),
        ("3", BrokenVersion, "a/3 cannot be fetched: .* has sha256"),
        ("2", None, ""),
        ("9", None, ""),
    ],
)
def test_an_older_version_does_not_answer_for_one_that_cannot_be_downloaded(
    mirror: BucketMirror,
    bucket: WatchedBucket,
    remote: Path,
    version: str | None,
    error: type[ConvoyError] | None,
    message: str,
) -> None:
    write_version(remote, "a", 4)
    (write_version(remote, "a", 3) / "labels.txt").write_text("x")
    bucket.lost_prefixes = ("a/4/",)
    mirror.sync()
    mirror.check_fetched("b", None)
    if error is None:
        mirror.check_fetched("a", version)
    else:
        with pytest.raises(error, match=message):
            mirror.check_fetched("a", version)


@pytest.mark.parametrize("is_withdrawn", [True, False], ids=["the new version too", "the old version"])
def test_a_slow_download_does_not_delay_a_rollback(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, monkeypatch: pytest.MonkeyPatch, is_withdrawn: bool
) -> None:
    mirror.sync()
    write_version(remote, "c" if not is_withdrawn else "a", 3)
    sound = bucket.chunks
    removed: list[bool] = []

    def slow(path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        if path.endswith("3/manifest.json"):
            shutil.rmtree(remote / "a" / "2")
            if is_withdrawn:
                shutil.rmtree(remote / "a" / "3")
            removed.append(wait_until(lambda: not (mirror.folder / "a" / "2").exists()))
            yield from sound(path) if not is_withdrawn else iter(())
        else:
            yield from sound(path)

    bucket.chunks = slow  # type: ignore[method-assign]
    monkeypatch.setattr("service.model_store.fetch_round.RELISTING_INTERVAL_S", 0.001)
    mirror.sync()
    assert removed == [True]
    assert local_versions(mirror) == {"a": [1], "b": [1]} | ({} if is_withdrawn else {"c": [3]})


def wait_until(condition: Callable[[], bool]) -> bool:
    """Returns whether the condition becomes true within a long time."""
    return any(condition() or threading.Event().wait(0.005) for _ in range(6000))


def test_a_version_that_is_gone_when_its_download_ends_is_not_published(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.sync()
    write_version(remote, "a", 3)
    sound, is_relisted = bucket.listing, threading.Event()
    contents = {path.name: path.read_bytes() for path in (remote / "a" / "3").iterdir()}

    def chunks(path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        if path.endswith("manifest.json"):
            shutil.rmtree(remote / "a" / "3")
            bucket.listing = relist  # type: ignore[method-assign]
            assert is_relisted.wait(30)
        yield contents[Path(path).name]

    def relist() -> dict[str, ObjectInfo]:
        if is_asked_again.is_set():
            is_relisted.set()
        is_asked_again.set()
        return sound()

    is_asked_again = threading.Event()
    bucket.chunks = chunks  # type: ignore[method-assign]
    monkeypatch.setattr("service.model_store.fetch_round.RELISTING_INTERVAL_S", 0.001)
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS
    assert mirror.failures == {}


def test_a_version_that_is_published_while_the_last_other_one_is_removed_keeps_its_folder(
    mirror: BucketMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.sync()
    cache = BucketCache(mirror.folder)
    fetched = mirror.folder / ".fetching" / "new"
    shutil.copytree(mirror.folder / "b" / "1", fetched)
    replace = Path.replace
    removal = threading.Thread(target=cache.remove, args=("b/1",), daemon=True)

    def remove_meanwhile(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        removal.start()
        removal.join(0.1)  # ends only if nothing blocks it
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", remove_meanwhile)
    cache.publish(fetched, "b/2")
    removal.join(30)
    assert Repository(mirror.folder).versions("b") == [2]


def test_a_denied_listing_names_the_missing_permission(
    mirror: BucketMirror, bucket: WatchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny() -> dict[str, ObjectInfo]:
        raise BucketDenied("the bucket cannot be listed.")

    monkeypatch.setattr(bucket, "listing", deny)
    with pytest.raises(BucketUnreachable) as raised:
        mirror.sync()
    assert raised.value.hint == BucketDenied.hint
