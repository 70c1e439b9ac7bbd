"""The mirror thread: cached models can be served after the first sync, and no failure ends the syncing."""

import asyncio
import threading
import time

import pytest

from service.model_store.mirror_thread import MirrorThread
from service.model_store.object_store import BucketUnreachable


class FakeMirror:
    """Counts the syncs, and fails as told."""

    def __init__(self, *failures: Exception | None) -> None:
        self.syncs = 0
        self.is_done = threading.Event()
        self._failures = failures
        self.has_no_version = True

    def is_empty(self) -> bool:
        return self.has_no_version

    def sync(self) -> None:
        self.syncs += 1
        if self.syncs > len(self._failures):
            self.is_done.set()
        elif failure := self._failures[self.syncs - 1]:
            raise failure


def test_starting_waits_for_the_first_sync_even_if_it_fails() -> None:
    mirror = FakeMirror(BucketUnreachable("down"))
    mirror_thread = MirrorThread(mirror, interval_s=60)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(mirror_thread.start(), 30))
    assert mirror.syncs == 1
    mirror_thread.stop()


def test_it_goes_on_after_failures_of_any_kind(caplog: pytest.LogCaptureFixture) -> None:
    mirror = FakeMirror(None, BucketUnreachable("down"), RuntimeError("a mistake"))
    mirror_thread = MirrorThread(mirror, interval_s=0.001)  # type: ignore[arg-type]
    asyncio.run(mirror_thread.start())
    assert mirror.is_done.wait(30)
    mirror_thread.stop()
    assert [record.exc_text is not None for record in caplog.records if record.name == "convoy"] == [True]


def test_it_stops_when_told() -> None:
    mirror = FakeMirror()
    mirror_thread = MirrorThread(mirror, interval_s=0.001)  # type: ignore[arg-type]
    before = set(threading.enumerate())  # those of other tests may still be ending
    asyncio.run(mirror_thread.start())
    mirror_thread.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    syncs = mirror.syncs
    time.sleep(0.02)
    assert mirror.syncs == syncs


class HangingMirror(FakeMirror):
    """Its syncs do not end before the test says so."""

    def sync(self) -> None:
        assert self.is_done.wait(30)


def test_the_loop_goes_on_while_a_sync_blocks() -> None:
    async def test() -> None:
        mirror = HangingMirror()
        mirror_thread = MirrorThread(mirror, interval_s=60, first_sync_timeout_s=0.001)  # type: ignore[arg-type]
        starting = asyncio.create_task(mirror_thread.start())
        await asyncio.sleep(0.05)
        assert not starting.done(), "there is nothing to serve yet"
        mirror.is_done.set()
        await asyncio.wait_for(starting, 30)
        mirror_thread.stop()

    asyncio.run(test())


def test_what_is_cached_does_not_wait_for_a_bucket_that_hangs() -> None:
    mirror = HangingMirror()
    mirror.has_no_version = False
    mirror_thread = MirrorThread(mirror, interval_s=60, first_sync_timeout_s=0.01)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(mirror_thread.start(), 10))
    assert not mirror.is_done.is_set()
    mirror.is_done.set()
    mirror_thread.stop()
