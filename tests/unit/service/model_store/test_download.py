"""A version is downloaded completely and according to its manifest, or not at all, without affecting others."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.model_store.bucket_cache import BucketCache
from service.model_store.mirror import BucketMirror
from tests.unit.service.buckets import REMOTE_VERSIONS, FakeClock, WatchedBucket, local_versions, replace_file

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


def test_only_files_of_the_manifest_the_card_and_images_are_downloaded(mirror: BucketMirror, remote: Path) -> None:
    folder = remote / "b" / "1"
    for name in ("card.md", "curves.png", "notes.txt", ".hidden.png", "-x.png", "inner/deep.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("text")
    mirror.sync()
    names = {path.name for path in (mirror.folder / "b" / "1").iterdir() if not path.name.startswith(".")}
    assert names == {"manifest.json", "model.onnx", "labels.txt", "card.md", "curves.png"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.onnx", b"", "has 0 bytes; the manifest says"),
        ("model.onnx", LFS_POINTER, "model.onnx is a Git LFS pointer"),
        ("manifest.json", LFS_POINTER, "manifest.json is a Git LFS pointer"),
        ("model.onnx", b"x" * 100, "has 100 bytes; the manifest says"),
        ("labels.txt", b"other\n", "labels.txt has sha256"),
        ("labels.txt", None, "labels.txt, which the manifest names, is missing"),
        ("manifest.json", b"{}", "is not a valid manifest"),
        ("manifest.json", b" " * (1024**2 + 1), "manifest.json has 1048577 bytes, more than"),
        ("labels.txt", b" " * (16 * 1024**2 + 1), "labels.txt has 16777217 bytes, more than"),
    ],
)
def test_a_broken_version_is_skipped_and_the_rest_is_downloaded(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, file: str, content: bytes | None, message: str
) -> None:
    good = (remote / "a" / "2" / file).read_bytes()
    (remote / "a" / "2" / file).unlink()
    if content is not None:
        (remote / "a" / "2" / file).write_bytes(content)
    mirror.sync()
    assert local_versions(mirror) == {"a": [1], "b": [1]}
    assert message in mirror.failures["a/2"]
    assert f"file://{remote}/a/2" in mirror.failures["a/2"]
    assert str(mirror.folder) not in mirror.failures["a/2"]
    bucket.read.clear()
    mirror.sync()
    assert bucket.read == [], "the listing is unchanged, so there is no new attempt"
    replace_file(remote / "a" / "2" / file, good)
    mirror.sync()
    assert (local_versions(mirror), mirror.failures) == (REMOTE_VERSIONS, {})


def test_the_right_number_of_wrong_bytes_is_not_published(mirror: BucketMirror, remote: Path) -> None:
    graph = remote / "a" / "2" / "model.onnx"
    replace_file(graph, graph.read_bytes()[:-1] + b"\0")
    mirror.sync()
    assert "model.onnx has sha256" in mirror.failures["a/2"]
    assert local_versions(mirror) == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "labels.txt had 32 bytes when it was listed, and another size when it was read"),
        (b"more than were listed" * 100, "labels.txt has sha256"),
    ],
)
def test_an_object_rewritten_while_it_is_read_is_not_published(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, content: bytes, reason: str
) -> None:
    labels = remote / "a" / "2" / "labels.txt"
    good, listed = labels.read_bytes(), bucket.listing()
    bucket.listing = lambda: listed  # type: ignore[method-assign]
    labels.write_bytes(content)
    mirror.sync()
    assert reason in mirror.failures["a/2"]
    assert local_versions(mirror) == {"a": [1], "b": [1]}
    del bucket.listing
    replace_file(labels, good)
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS


def test_an_object_without_the_right_to_read_it_is_tried_again(
    mirror: BucketMirror, bucket: WatchedBucket, clock: FakeClock
) -> None:
    """A change of permissions is not visible in the listing."""
    bucket.forbidden_path = "a/2/model.onnx"
    mirror.sync()
    assert mirror.failures == {"a/2": "a/2/model.onnx may not be read."}
    assert local_versions(mirror) == {"a": [1], "b": [1]}
    bucket.forbidden_path = ""
    clock.now_s += 10
    mirror.sync()
    assert (local_versions(mirror), mirror.failures) == (REMOTE_VERSIONS, {})


def test_images_are_bounded_in_number_and_size(mirror: BucketMirror, remote: Path) -> None:
    for number in range(40):
        (remote / "b" / "1" / f"curve-{number:02}.png").write_bytes(b"png")
    with (remote / "b" / "1" / "card.md").open("wb") as card:
        card.truncate(16 * 1024**2 + 1)
    for _ in range(2):
        mirror.sync()
    names = sorted(path.name for path in (mirror.folder / "b" / "1").iterdir())
    assert sum(name.endswith(".png") for name in names) == 32
    assert "card.md" not in names
    assert local_versions(mirror) == REMOTE_VERSIONS


@pytest.mark.parametrize("kind", ["link", "link inside", "pipe"])
@pytest.mark.parametrize("file", ["card.md", "curve.png", "labels.txt", "model.onnx", "manifest.json"])
def test_links_and_pipes_of_a_folder_are_never_opened(
    mirror: BucketMirror, bucket: WatchedBucket, remote: Path, tmp_path: Path, file: str, kind: str
) -> None:
    """A link can point to any file of the machine, and opening a pipe would block forever."""
    path = remote / "a" / "2" / file
    content = path.read_bytes() if path.exists() else b"a secret of the machine"
    path.unlink(missing_ok=True)
    target = path.with_name("other") if kind == "link inside" else tmp_path / "elsewhere"
    target.write_bytes(content)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    mirror.sync()
    assert f"a/2/{file}" not in bucket.read
    if file in {"card.md", "curve.png"}:
        assert (local_versions(mirror), mirror.failures) == (REMOTE_VERSIONS, {})
        assert not (mirror.folder / "a" / "2" / file).exists()
    else:
        assert local_versions(mirror) == {"a": [1], "b": [1]}
        assert f"{file} is a link or not a regular file" in mirror.failures["a/2"]
    path.unlink()
    target.rename(path)
    mirror.sync()
    assert (local_versions(mirror), mirror.failures) == (REMOTE_VERSIONS, {})
    assert (mirror.folder / "a" / "2" / file).read_bytes() == content


def test_a_file_that_became_a_link_is_taken_away(mirror: BucketMirror, remote: Path) -> None:
    card = remote / "a" / "2" / "card.md"
    card.write_text("# A card")
    mirror.sync()
    card.rename(remote / "moved")
    card.symlink_to(remote / "moved")
    mirror.sync()
    mirror.sync()
    assert not (mirror.folder / "a" / "2" / "card.md").exists()
    assert local_versions(mirror) == REMOTE_VERSIONS


def test_a_broken_edit_leaves_the_version_that_was_there(mirror: BucketMirror, remote: Path) -> None:
    mirror.sync()
    replace_file(remote / "a" / "2" / "labels.txt", b"half")
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS
    assert set(mirror.failures) == {"a/2"}


def test_a_version_does_not_exist_before_its_manifest(mirror: BucketMirror, remote: Path) -> None:
    (remote / "a" / "2" / "manifest.json").rename(remote / "manifest.json")
    mirror.sync()
    assert (local_versions(mirror), mirror.failures) == ({"a": [1], "b": [1]}, {})
    (remote / "manifest.json").rename(remote / "a" / "2" / "manifest.json")
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS


def test_a_damaged_copy_is_downloaded_again(mirror: BucketMirror) -> None:
    mirror.sync()
    (mirror.folder / "a" / "1" / "model.onnx").write_bytes(b"cut")
    (mirror.folder / "b" / "1" / ".fetched.json").write_text("[]")
    (mirror.folder / ".state.json").write_text("{")
    mirror.sync()
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS


def test_an_object_without_end_is_cut_off(mirror: BucketMirror, bucket: WatchedBucket) -> None:
    read, sound = 0, bucket.chunks

    def endless(path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        nonlocal read
        while path == "a/2/labels.txt" and read < 1000:
            read += 1
            yield b"more and more"
        yield from sound(path)

    bucket.chunks = endless  # type: ignore[method-assign]
    mirror.sync()
    assert read == 3, "it was listed with 32 bytes"
    assert local_versions(mirror) == {"a": [1], "b": [1]}


def test_a_copy_that_was_changed_with_equal_size_is_downloaded_again(
    mirror: BucketMirror, bucket: WatchedBucket
) -> None:
    mirror.sync()
    graph = mirror.folder / "b" / "1" / "model.onnx"
    sound = graph.read_bytes()
    graph.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    fetched = graph.with_name(".fetched.json").stat()
    os.utime(graph, ns=(fetched.st_atime_ns, fetched.st_mtime_ns + 1))
    bucket.read.clear()
    mirror.sync()
    assert (mirror.folder / "b" / "1" / "model.onnx").read_bytes() == sound
    assert {path.rpartition("/")[0] for path in bucket.read} == {"b/1"}


def test_downloaded_files_are_on_the_disk_before_they_are_published(
    mirror: BucketMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sound = BucketCache.publish

    def publish(cache: BucketCache, fetched: Path, version_path: str) -> None:
        names = {path.name for path in fetched.iterdir()} - {".fetched.json"}
        assert names == {Path(path).name for path in synced if Path(path).parent == fetched}
        sound(cache, fetched, version_path)

    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(BucketCache, "publish", publish)
    mirror.sync()
    assert local_versions(mirror) == REMOTE_VERSIONS
