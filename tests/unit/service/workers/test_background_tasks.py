"""Background tasks are restarted after any end; failures are logged and counted, and repeated ones fail readiness."""

import asyncio
from collections.abc import Callable

import pytest

from service.observability.metrics import Metrics
from service.workers.background_tasks import MAX_FAILURES, MAX_RESTART_DELAY_S, BackgroundTasks, OnSuccess


class Supervised:
    """Background tasks with immediate restarts. `run` is a task that executes `steps` and then waits."""

    def __init__(self, *steps: Callable[[OnSuccess], None]) -> None:
        self.metrics = Metrics()
        self.tasks = BackgroundTasks(self.metrics, self._sleep)
        self.delays_s: list[float] = []
        self.runs = 0
        self._steps = list(steps)
        self._is_done = asyncio.Event()

    async def _sleep(self, seconds: float) -> None:
        self.delays_s.append(seconds)

    async def run(self, on_success: OnSuccess) -> None:
        self.runs += 1
        if self._steps:
            self._steps.pop(0)(on_success)
            return
        self._is_done.set()
        await asyncio.Event().wait()

    async def run_all_steps(self) -> None:
        self.tasks.start("task", self.run)
        async with asyncio.timeout(30):
            await self._is_done.wait()

    def failures(self) -> float:
        return self.metrics.background_failures.labels("task")._value.get()


def fail(on_success: OnSuccess) -> None:
    raise OSError("no disk")


def succeed_and_fail(on_success: OnSuccess) -> None:
    on_success()
    raise OSError("no disk")


def be_cancelled_from_inside(on_success: OnSuccess) -> None:
    raise asyncio.CancelledError


def end(on_success: OnSuccess) -> None:
    """Ends the task, which in the service happens only by mistake."""


async def supervised(*steps: Callable[[OnSuccess], None]) -> Supervised:
    harness = Supervised(*steps)
    await harness.run_all_steps()
    return harness


@pytest.mark.parametrize("step", [fail, be_cancelled_from_inside, end])
def test_a_task_is_logged_counted_and_restarted_however_it_ends(
    step: Callable[[OnSuccess], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        harness = await supervised(step)
        assert harness.runs == 2
        assert harness.failures() == 1
        assert harness.tasks.not_ready_reasons() == {}
        await harness.tasks.stop()

    asyncio.run(scenario())
    (record,) = [record for record in caplog.records if record.message == "background task failed"]
    assert record.fields == {"task": "task", "failures": 1, "restart_s": 1.0}  # type: ignore[attr-defined]
    assert record.exc_info


def test_restarts_wait_longer_with_each_failure_in_a_row() -> None:
    async def scenario() -> None:
        harness = await supervised(*[fail] * 7, succeed_and_fail, fail)
        assert harness.delays_s == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_RESTART_DELAY_S, 30.0, 1.0, 2.0]
        await harness.tasks.stop()

    asyncio.run(scenario())


def test_repeated_failures_fail_readiness_until_the_task_succeeds() -> None:
    async def scenario() -> None:
        harness = await supervised(*[fail] * (MAX_FAILURES - 1))
        assert harness.tasks.not_ready_reasons() == {}
        await harness.tasks.stop()
        harness = await supervised(*[fail] * MAX_FAILURES)
        (reason,) = harness.tasks.not_ready_reasons().items()
        assert reason[0] == "background task task"
        assert "5 times in a row" in reason[1]
        assert "no disk" in reason[1]
        await harness.tasks.stop()
        harness = await supervised(*[fail] * MAX_FAILURES, succeed_and_fail)
        assert harness.tasks.not_ready_reasons() == {}
        assert harness.failures() == MAX_FAILURES + 1
        await harness.tasks.stop()

    asyncio.run(scenario())


def test_a_failing_task_does_not_disturb_another() -> None:
    async def scenario() -> None:
        harness = Supervised(*[fail] * 3)
        is_cancelled = asyncio.Event()

        async def wait(on_success: OnSuccess) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                is_cancelled.set()

        harness.tasks.start("other", wait)
        await harness.run_all_steps()
        assert not is_cancelled.is_set()
        await harness.tasks.stop()
        assert is_cancelled.is_set(), "stopping waits for the end of the tasks"
        assert harness.runs == 4

    asyncio.run(scenario())
