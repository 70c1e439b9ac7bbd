"""The follower: what is cached can be served after the first try, and no failure ends the trying."""

import asyncio
import threading
import time

import pytest

from service.model_store.mirror_thread import Follower
from service.model_store.object_store import BucketUnreachable


class FakeMirror:
    """Counts the syncs, and fails as told."""

    def __init__(self, *failures: Exception | None) -> None:
        self.syncs = 0
        self.enough = threading.Event()
        self._failures = failures
        self.empty = True

    def is_empty(self) -> bool:
        return self.empty

    def sync(self) -> None:
        self.syncs += 1
        if self.syncs > len(self._failures):
            self.enough.set()
        elif failure := self._failures[self.syncs - 1]:
            raise failure


def test_starting_waits_for_the_first_sync_even_if_it_fails() -> None:
    mirror = FakeMirror(BucketUnreachable("down"))
    follower = Follower(mirror, every_s=60)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(follower.start(), 30))
    assert mirror.syncs == 1
    follower.stop()


def test_it_goes_on_after_failures_of_any_kind(caplog: pytest.LogCaptureFixture) -> None:
    mirror = FakeMirror(None, BucketUnreachable("down"), RuntimeError("a mistake"))
    follower = Follower(mirror, every_s=0.001)  # type: ignore[arg-type]
    asyncio.run(follower.start())
    assert mirror.enough.wait(30)
    follower.stop()
    assert [record.exc_text is not None for record in caplog.records if record.name == "convoy"] == [True]


def test_it_stops_when_told() -> None:
    mirror = FakeMirror()
    follower = Follower(mirror, every_s=0.001)  # type: ignore[arg-type]
    before = set(threading.enumerate())  # those of other tests may still be ending
    asyncio.run(follower.start())
    follower.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    syncs = mirror.syncs
    time.sleep(0.02)
    assert mirror.syncs == syncs


class HangingMirror(FakeMirror):
    """Its syncs do not end before the test says so."""

    def sync(self) -> None:
        assert self.enough.wait(30)


def test_the_loop_goes_on_while_a_sync_blocks() -> None:
    async def test() -> None:
        mirror = HangingMirror()
        follower = Follower(mirror, every_s=60, patience_s=0.001)  # type: ignore[arg-type]
        starting = asyncio.create_task(follower.start())
        await asyncio.sleep(0.05)
        assert not starting.done(), "there is nothing to serve yet"
        mirror.enough.set()
        await asyncio.wait_for(starting, 30)
        follower.stop()

    asyncio.run(test())


def test_what_is_cached_does_not_wait_for_a_bucket_that_hangs() -> None:
    mirror = HangingMirror()
    mirror.empty = False
    follower = Follower(mirror, every_s=60, patience_s=0.01)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(follower.start(), 10))
    assert not mirror.enough.is_set()
    mirror.enough.set()
    follower.stop()
