"""The watcher applies the desired state and publishes the applied generation; a hanging model is logged once."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from service.loaded_models.watcher import HangLog, ReadinessLog, Watcher
from service.model_store.desired_state import DesiredState, StateFile

TIMEOUT_S, POLL_S = 30.0, 0.005


class FakeRegistry:
    """Records the calls of `reconcile`; models in `hung` hang."""

    def __init__(self) -> None:
        self.reconciled: list[DesiredState] = []
        self.retries: list[bool] = []
        self.hung: dict[str, str] = {}
        self.not_ready: dict[str, str] = {}
        self.has_loaded = True
        self.error: Exception | None = None

    async def reconcile(self, desired: DesiredState, *, retry: bool = False) -> None:
        self.reconciled.append(desired)
        self.retries.append(retry)
        if self.error is not None:
            raise self.error

    def hung_models(self) -> dict[str, str]:
        return self.hung

    def not_ready_reasons(self) -> dict[str, str]:
        return self.not_ready


class FakePublisher:
    """Records the published generations. `request` is the value that another worker changes."""

    def __init__(self) -> None:
        self.generations: list[int] = []
        self.request = 0

    def publish_status(self, generation: int) -> None:
        self.generations.append(generation)

    def refresh_request(self) -> int:
        return self.request


class Harness:
    """Runs a watcher within the test's block."""

    def __init__(self, folder: Path, scan_interval_s: float = 3600) -> None:
        self.state = StateFile(folder / "state.json")
        self.registry, self.publisher = FakeRegistry(), FakePublisher()
        self.successes = 0
        self.watcher = Watcher(self.state, self.registry, self.publisher, scan_interval_s)  # type: ignore[arg-type]

    async def __aenter__(self) -> "Harness":
        self.start()
        return self

    def start(self) -> None:
        """Starts both tasks, like a supervisor that restarts one."""
        self.following = asyncio.create_task(self.watcher.follow(None, self._count_success))
        self.publishing = asyncio.create_task(self.watcher.publish_regularly(self._count_success))

    def _count_success(self) -> None:
        self.successes += 1

    async def __aexit__(self, *_: object) -> None:
        self.following.cancel()
        self.publishing.cancel()
        await asyncio.gather(self.following, self.publishing, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(round(TIMEOUT_S / POLL_S)):
            if condition():
                return
            await asyncio.sleep(POLL_S)
        raise TimeoutError


def test_a_change_of_the_state_file_is_applied_and_published(tmp_path: Path) -> None:
    async def test() -> None:
        async with Harness(tmp_path) as harness:
            await harness.until(lambda: DesiredState().generation in harness.publisher.generations)
            desired = harness.state.update(lambda now: now.with_change("a", loaded=False))
            await harness.until(lambda: desired.generation in harness.publisher.generations)
            assert harness.registry.reconciled == [DesiredState(), desired]

    asyncio.run(test())


def test_a_bad_state_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with Harness(tmp_path, scan_interval_s=0) as harness:
            desired = harness.state.update(lambda now: now.with_change("a", loaded=False))
            await harness.until(lambda: desired in harness.registry.reconciled)
            harness.state.path.write_text("{")
            await harness.until(lambda: "state file is invalid" in caplog.messages)
            scans = len(harness.registry.reconciled)
            await harness.until(lambda: len(harness.registry.reconciled) > scans)
            assert harness.registry.reconciled[-1] == desired

    asyncio.run(test())


def test_a_change_whose_scan_failed_is_applied_by_the_next_run(tmp_path: Path) -> None:
    async def test() -> None:
        async with Harness(tmp_path) as harness:
            await harness.until(lambda: bool(harness.registry.reconciled))
            harness.registry.error = RuntimeError("disk")
            desired = harness.state.update(lambda now: now.with_change("a", loaded=False))
            with pytest.raises(RuntimeError, match="disk"):
                await harness.following
            assert not harness.publishing.done(), "the other task continues"
            assert desired.generation not in harness.publisher.generations
            harness.registry.error = None
            harness.start()
            await harness.until(lambda: desired.generation in harness.publisher.generations)
            assert harness.registry.reconciled[-1] == desired
            assert harness.registry.retries == [True, True, True], "each had a change to apply"

    asyncio.run(test())


def test_a_state_file_is_read_again_after_an_unforeseen_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with Harness(tmp_path) as harness:
            await harness.until(lambda: bool(harness.registry.reconciled))
            with monkeypatch.context() as patch:
                desired = harness.state.update(lambda _: DesiredState(generation=5))
                patch.setattr(StateFile, "read", lambda _: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    await harness.following
            harness.start()
            await harness.until(lambda: desired.generation in harness.publisher.generations)

    asyncio.run(test())


def test_success_is_reported_by_each_task_and_not_after_a_failure(tmp_path: Path) -> None:
    async def test() -> None:
        async with Harness(tmp_path, scan_interval_s=0) as harness:
            harness.publishing.cancel()
            await harness.until(lambda: harness.successes > 1)
            harness.registry.error = RuntimeError("disk")
            with pytest.raises(RuntimeError):
                await harness.following
            successes = harness.successes
            harness.start()
            harness.following.cancel()
            await harness.until(lambda: harness.successes > successes)

    asyncio.run(test())


def test_another_workers_request_is_answered_before_the_next_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.loaded_models.watcher.HEARTBEAT_INTERVAL_S", 3600.0)

    async def test() -> None:
        async with Harness(tmp_path) as harness:
            await harness.until(lambda: DesiredState().generation in harness.publisher.generations)
            published = len(harness.publisher.generations)
            harness.publisher.request = 7
            await harness.until(lambda: len(harness.publisher.generations) > published)

    asyncio.run(test())


def test_a_hang_is_logged_once_at_its_start_and_end(caplog: pytest.LogCaptureFixture) -> None:
    registry = FakeRegistry()
    hang_log = HangLog(registry)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, logger="convoy"):
        for hung in ({}, {"a": "why"}, {"a": "why"}, {"a": "why", "b": "too"}, {"b": "too"}, {"b": "too"}, {}):
            registry.hung = hung
            hang_log.update()
    logged = [(record.message, record.fields["model"]) for record in caplog.records if record.name == "convoy"]  # type: ignore[attr-defined]
    assert logged[:2] == [("model hangs", "a"), ("model hangs", "b")]
    assert logged[2:] == [("model no longer hangs", "a"), ("model no longer hangs", "b")]


def test_missing_readiness_is_logged_once_after_the_first_load(caplog: pytest.LogCaptureFixture) -> None:
    registry = FakeRegistry()
    readiness_log = ReadinessLog(registry)  # type: ignore[arg-type]
    empty = {"service": "There is no model."}
    with caplog.at_level(logging.INFO, logger="convoy"):
        for has_loaded, reasons in ((False, empty), (True, empty), (True, empty), (True, {}), (True, {})):
            registry.has_loaded, registry.not_ready = has_loaded, reasons
            readiness_log.update()
    first, second = (record for record in caplog.records if record.name == "convoy")
    assert (first.message, first.levelname, first.fields["reasons"]) == ("service is not ready", "ERROR", empty)  # type: ignore[attr-defined]
    assert (second.message, second.levelname) == ("service is ready again", "INFO")
