"""Several versions are closed with one trim of memory, and without a trim when the process exits."""

import asyncio

import pytest

from service.loaded_models.version_closer import VersionCloser
from service.observability.metrics import Metrics


class FakeVersion:
    """A version that is closed when the test allows it."""

    model, version = "a", "1"

    def __init__(self) -> None:
        self.may_close = asyncio.Event()
        self.closed = asyncio.Event()

    async def close(self) -> None:
        await self.may_close.wait()
        self.closed.set()


class Trims:
    """Counts the trims, and signals each to the event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.trimmed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        monkeypatch.setattr("service.malloc.trim", self._trim)

    def _trim(self) -> None:
        self.count += 1
        self._loop.call_soon_threadsafe(self.trimmed.set)


def test_closing_many_versions_trims_memory_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        trims, closer = Trims(monkeypatch), VersionCloser(Metrics())
        versions = [FakeVersion() for _ in range(300)]
        for version in versions:
            closer.close_later(version)  # type: ignore[arg-type]
        for version in versions[1:]:
            version.may_close.set()
        await asyncio.gather(*(version.closed.wait() for version in versions[1:]))
        assert trims.count == 0
        versions[0].may_close.set()
        await asyncio.wait_for(trims.trimmed.wait(), 30)
        await closer.wait_at_end()
        assert trims.count == 1

    asyncio.run(test())


def test_the_end_of_the_process_waits_for_all_and_trims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        trims, closer = Trims(monkeypatch), VersionCloser(Metrics())
        versions = [FakeVersion() for _ in range(300)]
        for version in versions:
            closer.close_later(version)  # type: ignore[arg-type]
        waiting = asyncio.create_task(closer.wait_at_end())
        await asyncio.sleep(0)
        assert not waiting.done()
        for version in versions:
            version.may_close.set()
        await asyncio.wait_for(waiting, 30)
        assert all(version.closed.is_set() for version in versions)
        assert trims.count == 0

    asyncio.run(test())
