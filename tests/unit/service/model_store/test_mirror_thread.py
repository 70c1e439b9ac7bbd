"""The mirror thread: cached models can be served after the first sync, and an unexpected error reaches its task."""

import asyncio
import threading

import pytest

from service.model_store.mirror_thread import MirrorThread
from service.model_store.object_store import BucketUnreachable


class FakeMirror:
    """Counts the syncs, and fails if the test requests it."""

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


def mirror_thread_of(
    mirror: FakeMirror, interval_s: float = 3600.0, first_sync_timeout_s: float = 30.0
) -> MirrorThread:
    return MirrorThread(mirror, interval_s, first_sync_timeout_s)  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", [None, BucketUnreachable("down"), RuntimeError("a mistake")])
def test_startup_waits_for_the_first_sync_even_if_it_fails(failure: Exception | None) -> None:
    async def scenario() -> None:
        mirror = FakeMirror(failure)
        mirror_thread = mirror_thread_of(mirror)
        running = asyncio.create_task(mirror_thread.run(lambda: None))
        async with asyncio.timeout(30):
            await mirror_thread.wait_for_first_sync()
        assert mirror.syncs == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_an_unreachable_bucket_does_not_end_the_syncing_and_another_error_is_raised() -> None:
    mirror = FakeMirror(None, BucketUnreachable("down"), None, RuntimeError("a mistake"))
    successes: list[int] = []
    with pytest.raises(RuntimeError, match="a mistake"):
        asyncio.run(mirror_thread_of(mirror, interval_s=0.0).run(lambda: successes.append(mirror.syncs)))
    assert len(successes) == 3
    assert mirror.syncs == 4


def test_the_thread_can_be_restarted_after_an_error() -> None:
    mirror = FakeMirror(RuntimeError("a mistake"))
    mirror_thread = mirror_thread_of(mirror)

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="a mistake"):
            await mirror_thread.run(lambda: None)
        has_synced = asyncio.Event()
        running = asyncio.create_task(mirror_thread.run(has_synced.set))
        async with asyncio.timeout(30):
            await has_synced.wait()
        running.cancel()

    asyncio.run(scenario())
    assert mirror.syncs == 2


def test_cancelling_ends_the_thread() -> None:
    before = set(threading.enumerate())  # threads of other tests may still be ending

    async def scenario() -> None:
        has_synced = asyncio.Event()
        running = asyncio.create_task(mirror_thread_of(FakeMirror()).run(has_synced.set))
        await has_synced.wait()
        assert {thread.name for thread in set(threading.enumerate()) - before} == {"bucket"}
        running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 30))
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


class HangingMirror(FakeMirror):
    """A mirror whose syncs end only when the test allows it."""

    def sync(self) -> None:
        assert self.is_done.wait(30)


def test_without_cached_versions_the_first_sync_is_waited_for_without_limit() -> None:
    async def scenario() -> None:
        mirror = HangingMirror()
        mirror_thread = mirror_thread_of(mirror, first_sync_timeout_s=0.0)
        running = asyncio.create_task(mirror_thread.run(lambda: None))
        waiting = asyncio.create_task(mirror_thread.wait_for_first_sync())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done(), "no version can be served yet"
        mirror.is_done.set()
        async with asyncio.timeout(30):
            await waiting
        running.cancel()

    asyncio.run(scenario())


def test_cached_versions_do_not_wait_for_a_bucket_that_hangs() -> None:
    async def scenario() -> None:
        mirror = HangingMirror()
        mirror.has_no_version = False
        mirror_thread = mirror_thread_of(mirror, first_sync_timeout_s=0.0)
        running = asyncio.create_task(mirror_thread.run(lambda: None))
        async with asyncio.timeout(30):
            await mirror_thread.wait_for_first_sync()
        assert not mirror.is_done.is_set()
        mirror.is_done.set()
        running.cancel()

    asyncio.run(scenario())
