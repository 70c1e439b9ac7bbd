"""A bucket's URL, listing and objects: invalid and unreadable ones raise different errors."""

import itertools
import os
import sys
from pathlib import Path

import pytest

from service.model_store.object_store import (
    CHUNK_BYTES,
    SCHEMES,
    Bucket,
    BucketDenied,
    BucketUnreachable,
    CannotOpenBucket,
    ObjectInfo,
    ObjectRefused,
    is_url,
    open_bucket,
)


def content(bucket: Bucket, path: str) -> bytes:
    return b"".join(bucket.chunks(path))


def test_urls_are_distinguished_from_folders() -> None:
    assert all(map(is_url, ["s3://a", "gs://a/b", "file:///a", "ftp://a"]))
    assert not any(map(is_url, ["models", "/srv/models", "./s3:/a", "C:/models"]))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/models", "'ftp://' cannot be read"),
        ("s3://", "does not name a bucket"),
        ("s3:///models", "does not name a bucket"),
        ("file://", "does not name a folder"),
        ("file://models", "does not name a folder"),
        ("s3://key:secret@bucket/models", "contains credentials"),
        ("s3://bucket/models?versionId=3", "'?'"),
        ("gs://bucket/models#1", "'#'"),
    ],
)
def test_invalid_urls_are_rejected(url: str, message: str) -> None:
    with pytest.raises(CannotOpenBucket) as raised:
        open_bucket(url)
    assert message in raised.value.message
    assert "secret" not in raised.value.message + raised.value.hint


@pytest.mark.parametrize(
    ("url", "missing"), [("file:///models", "fsspec"), ("s3://bucket/models", "s3fs"), ("gs://bucket/models", "gcsfs")]
)
def test_a_missing_package_names_the_package_to_install(
    url: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(CannotOpenBucket, match="is missing") as raised:
        open_bucket(url)
    assert "pip install --require-hashes -r requirements/serve-bucket.txt" in raised.value.hint
    assert missing in raised.value.hint
    command = "pip install --require-hashes -r requirements/serve-bucket.txt"
    assert command in Path("docs/models-and-versions.md").read_text(), "the same command as in the documentation"


def test_every_object_below_the_url_is_listed(tmp_path: Path) -> None:
    for name in ("a/1/manifest.json", "b/c.txt", "d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    listing = open_bucket(f"file://{tmp_path}/b/../").listing()
    assert {path: found.bytes for path, found in listing.items()} == {"a/1/manifest.json": 17, "b/c.txt": 7, "d": 1}


def test_the_tag_of_a_rewritten_object_differs(tmp_path: Path) -> None:
    bucket = open_bucket(f"file://{tmp_path}")
    (tmp_path / "a").write_text("x")
    before = bucket.listing()
    assert bucket.listing() == before
    (tmp_path / "new").write_text("y")
    os.utime(tmp_path / "new", (1, 1))  # a clock may be too coarse for two writes
    (tmp_path / "new").rename(tmp_path / "a")
    assert bucket.listing()["a"].tag != before["a"].tag


class FakeFolder:
    """A folder with one file `a` of five bytes, whose times the test sets, with the interface of fsspec."""

    def __init__(self) -> None:
        self.times = {"mtime": 1.0, "created": 1.0}

    def find(self, path: str, detail: bool, **options: object) -> dict[str, dict[str, object]]:
        return {f"{path}/a": {"size": 5, "type": "file", "ino": next(self._inodes), **self.times}}

    _inodes = itertools.count()


@pytest.mark.parametrize("times", [{"mtime": 2.0, "created": 2.0}, {"mtime": 1.0, "created": 2.0}])
def test_a_file_that_replaces_one_of_equal_size_and_time_has_another_tag(times: dict[str, float]) -> None:
    """`cp -p` and `rsync -t` keep the modification time, but not the change time."""
    folder = FakeFolder()
    bucket = Bucket("file:///models", folder, "/models")  # type: ignore[arg-type]
    before = bucket.listing()
    assert bucket.listing() == before, "the inode may change at any time in file systems in user space"
    folder.times = times
    assert bucket.listing()["a"].tag != before["a"].tag


def test_an_object_is_read_completely(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234" * 3_000_000)
    assert content(open_bucket(f"file://{tmp_path}"), "a") == b"1234" * 3_000_000


def test_a_known_size_saves_a_request_per_object() -> None:
    class FakeFiles:
        def __init__(self) -> None:
            self.requests: list[str] = []

        def info(self, path: str) -> dict[str, object]:
            self.requests.append("info")
            return {"size": CHUNK_BYTES + 1}

        def cat_file(self, path: str, start: int, end: int) -> bytes:
            self.requests.append(f"{start}-{end}")
            return b"x" * (end - start)

    chunks = [f"0-{CHUNK_BYTES}", f"{CHUNK_BYTES}-{CHUNK_BYTES + 1}"]
    for size_bytes, requests in ((None, ["info", *chunks]), (CHUNK_BYTES + 1, chunks), (0, [])):
        files = FakeFiles()
        bucket = Bucket("s3://bucket", files, "bucket")  # type: ignore[arg-type]
        assert sum(map(len, bucket.chunks("a", size_bytes))) == (CHUNK_BYTES + 1 if size_bytes != 0 else 0)
        assert files.requests == requests


def test_a_folder_that_does_not_exist_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(BucketUnreachable, match="nowhere"):
        open_bucket(f"file://{tmp_path}/nowhere").listing()


def test_a_missing_object_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ObjectRefused, match=r"/lost cannot be read"):
        content(open_bucket(f"file://{tmp_path}"), "lost")


class Forbidden:
    """Files that may be listed but not read, as cloud permissions allow."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def find(self, path: str, detail: bool) -> dict[str, dict[str, object]]:
        if path == "denied":
            raise self._error
        return {f"{path}/a": {"size": 3, "ETag": '"1"'}, "elsewhere/b": {"size": 1}, f"{path}/c": {"size": None}}

    def info(self, path: str) -> dict[str, object]:
        return {"size": 3}

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        raise self._error


def test_a_denied_object_is_distinguished_from_an_unreachable_bucket() -> None:
    with pytest.raises(ObjectRefused, match="Access Denied"):
        content(Bucket("s3://b", Forbidden(PermissionError("Access\nDenied.")), "b"), "a")
    with pytest.raises(BucketUnreachable, match=r"^s3://b/a cannot be read: TimeoutError\.$"):
        content(Bucket("s3://b", Forbidden(TimeoutError()), "b"), "a")


def test_a_bucket_that_may_not_be_listed_names_the_missing_permission() -> None:
    with pytest.raises(BucketDenied, match=r"^s3://b cannot be listed: Access Denied\.$") as raised:
        Bucket("s3://b", Forbidden(PermissionError("Access Denied")), "denied").listing()
    assert "permission to list" in raised.value.hint
    assert isinstance(raised.value, BucketUnreachable)


def test_paths_outside_the_root_are_not_listed() -> None:
    assert Bucket("s3://b", Forbidden(OSError()), "b").listing() == {"a": ObjectInfo(3, '"1"'), "c": ObjectInfo(0, "")}


def test_links_and_pipes_are_not_regular_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    root = tmp_path / "bucket"
    root.mkdir()
    (root / "file").write_text("its own")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "lost").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe")
    listing = open_bucket(f"file://{root}").listing()
    assert {name for name, found in listing.items() if found.is_regular_file} == {"file"}


class Recorded:
    """Files that record the options of every call. Each file has 5 bytes more than one chunk."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []

    def find(self, path: str, detail: bool, **options: object) -> dict[str, dict[str, object]]:
        self.calls.append(("find", options))
        return {}

    def info(self, path: str, **options: object) -> dict[str, object]:
        self.calls.append(("info", options))
        return {"size": CHUNK_BYTES + 5}

    def cat_file(self, path: str, start: int, end: int, **options: object) -> bytes:
        self.calls.append(("cat_file", options))
        return b"x" * (end - start)


def test_every_step_of_reading_a_cloud_has_a_time_limit() -> None:
    """A bucket that sends occasional bytes never causes a timeout of the connection."""
    files = Recorded()
    for scheme in ("s3", "gs"):
        options = SCHEMES[scheme]
        bucket = Bucket("s3://b", files, "b", options.find_options, options.read_options)
        bucket.listing()
        assert len(content(bucket, "a")) == CHUNK_BYTES + 5
    limits = [(step, options["timeout"]) for step, options in files.calls]
    assert limits == [("find", 120), ("info", 60), ("cat_file", 60), ("cat_file", 60)] * 2
