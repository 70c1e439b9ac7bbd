"""A folder that is a bucket, and a mirror of it."""

from pathlib import Path

import pytest

from service.model_store.mirror import BucketMirror
from tests.support.model_versions import write_version
from tests.unit.service.buckets import FakeClock, WatchedBucket


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """Returns the bucket's folder, with versions 1 and 2 of `a` and version 1 of `b`."""
    root = tmp_path / "bucket"
    for model, version in (("a", 1), ("a", 2), ("b", 1)):
        write_version(root, model, version, seed=version)
    return root


@pytest.fixture
def bucket(remote: Path) -> WatchedBucket:
    return WatchedBucket(remote)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def mirror(bucket: WatchedBucket, tmp_path: Path, clock: FakeClock) -> BucketMirror:
    return BucketMirror(bucket, tmp_path / "cache", clock)
