"""A bucket with injected faults, and helpers for the versions in a mirror of it."""

from collections.abc import Iterator
from pathlib import Path

from service.model_store.mirror import BucketMirror
from service.model_store.object_store import Bucket, BucketUnreachable, ObjectInfo, ObjectRefused, open_bucket
from service.model_store.repository import Repository

REMOTE_VERSIONS = {"a": [1, 2], "b": [1]}
"""The versions in the fixture `remote`."""


class WatchedBucket(Bucket):
    """A bucket that records the paths that are read.

    It fails while `is_down`, rejects `forbidden_path`, truncates `truncated_path`, and is unreachable for paths that
    start with one of `lost_prefixes`.
    """

    def __init__(self, root: Path) -> None:
        self._bucket = open_bucket(f"file://{root}")
        self.url = self._bucket.url
        self.listings = 0
        self.read: list[str] = []
        self.is_down = False
        self.truncated_path = self.forbidden_path = ""
        self.lost_prefixes: tuple[str, ...] = ()

    def listing(self) -> dict[str, ObjectInfo]:
        self.listings += 1
        if self.is_down:
            raise BucketUnreachable("the bucket is down.")
        return self._bucket.listing()

    def chunks(self, path: str, size_bytes: int | None = None) -> Iterator[bytes]:
        self.read.append(path)
        if path == self.forbidden_path:
            raise ObjectRefused(f"{path} may not be read.")
        if path.startswith(self.lost_prefixes):
            raise BucketUnreachable(f"{path} does not answer.")
        for chunk in self._bucket.chunks(path, size_bytes):
            if path == self.truncated_path:
                yield chunk[:10]
                raise BucketUnreachable("the connection is lost.")
            yield chunk


class FakeClock:
    """Unix time, which the test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def local_versions(mirror: BucketMirror) -> dict[str, list[int]]:
    """Returns the versions in the repository after opening each of them, which verifies the checksums."""
    repository = Repository(mirror.folder)
    found = {model: repository.versions(model) for model in repository.models()}
    for model, numbers in found.items():
        for number in numbers:
            folder = repository.open(model, number)
            folder.graph_path(folder.manifest.variants[0])
    return found


def replace_file(path: Path, content: bytes) -> None:
    path.with_name("new").write_bytes(content)
    path.with_name("new").rename(path)
