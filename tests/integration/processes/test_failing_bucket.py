"""A fault in one version in a bucket does not block other versions, and the service recovers from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.model_store import object_store
from service.model_store.mirror import BucketMirror
from service.model_store.object_store import BucketUnreachable, open_bucket
from tests.reliability.buckets.failing_bucket import FAULTS, FailingBucket, failing_bucket
from tests.support.model_versions import write_version
from tests.unit.service.buckets import FakeClock, local_versions


@pytest.fixture(scope="module")
def shared_bucket() -> Iterator[FailingBucket]:
    with failing_bucket() as bucket:
        yield bucket


@pytest.fixture
def bucket(shared_bucket: FailingBucket, monkeypatch: pytest.MonkeyPatch) -> FailingBucket:
    for name, value in shared_bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(object_store.READ_TIMEOUT, "timeout", 10)
    shared_bucket.proxy.inject("", "")
    shared_bucket.empty()
    return shared_bucket


SLOW_FAULTS = ("hangs", "drips")  # faults that end with a time limit


@pytest.mark.parametrize(
    "fault", [pytest.param(one, marks=pytest.mark.slow) if one in SLOW_FAULTS else one for one in FAULTS]
)
def test_a_fault_of_one_version_does_not_block_others_and_recovers(
    bucket: FailingBucket, tmp_path: Path, fault: str
) -> None:
    for model, version in (("a", 1), ("b", 1)):
        bucket.upload(write_version(tmp_path / "made", model, version, seed=version), model, version)
    clock = FakeClock()
    mirror = BucketMirror(open_bucket(bucket.url), tmp_path / "cache", clock)
    mirror.sync()
    bucket.upload(write_version(tmp_path / "made", "a", 2, seed=2), "a", 2)
    bucket.upload(write_version(tmp_path / "made", "c", 1, seed=1), "c", 1)
    bucket.remove("b", 1)
    bucket.proxy.inject(fault, "/a/2/")
    mirror.sync()
    assert bucket.proxy.injected[fault] > 0
    assert local_versions(mirror) == {"a": [1], "c": [1]}
    assert mirror.failures.keys() == {"a/2"}
    bucket.proxy.inject("", "")
    clock.now_s += 10
    mirror.sync()
    assert (local_versions(mirror), mirror.failures) == ({"a": [1, 2], "c": [1]}, {})


def test_a_bucket_that_denies_everything_leaves_what_is_cached(bucket: FailingBucket, tmp_path: Path) -> None:
    bucket.upload(write_version(tmp_path / "made", "a", 1), "a", 1)
    codes: list[str] = []
    mirror = BucketMirror(open_bucket(bucket.url), tmp_path / "cache", FakeClock(), codes.append)
    mirror.sync()
    bucket.proxy.inject("denied", "")
    with pytest.raises(BucketUnreachable, match="cannot be listed"):
        mirror.sync()
    assert (local_versions(mirror), codes) == ({"a": [1]}, ["bucket_denied"])
