"""The timers assign time to one stage, stop while a coroutine waits, and find their functions in the service."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.stage_timing.measure_stages import with_remainder
from tests.bench.stage_timing.timers import (
    BODY,
    COMPUTE,
    DECODE,
    HTTP,
    QUEUE,
    STAGE_FUNCTIONS,
    STAGES,
    StageTimers,
    timed,
)

ROOT = Path(__file__).parents[3]


class Time:
    """A clock that advances only when the test advances it."""

    def __init__(self) -> None:
        self.ns = 0

    def passes(self, ns: int) -> None:
        self.ns += ns


@pytest.fixture
def now() -> Time:
    return Time()


@pytest.fixture
def timers(now: Time) -> StageTimers:
    return StageTimers(lambda: now.ns)


def _used(timers: StageTimers) -> dict[str, int]:
    return {stage: ns for stage, ns in timers.totals_ns().items() if ns}


def test_an_inner_stage_is_not_counted_twice(timers: StageTimers, now: Time) -> None:
    compute = timed(lambda: now.passes(7), COMPUTE, timers)

    def queue() -> None:
        now.passes(1)
        compute()
        now.passes(2)

    timed(queue, QUEUE, timers)()
    now.passes(100)
    assert _used(timers) == {QUEUE: 3, COMPUTE: 7}
    assert timers.intervals()[QUEUE] == 2


def test_a_stage_within_itself_continues(timers: StageTimers, now: Time) -> None:
    inner = timed(lambda: now.passes(5), QUEUE, timers)
    timed(lambda: (now.passes(1), inner()), QUEUE, timers)()
    assert _used(timers) == {QUEUE: 6}
    assert timers.intervals()[QUEUE] == 1


def test_a_failing_function_stops_its_clock(timers: StageTimers, now: Time) -> None:
    def fail() -> None:
        now.passes(4)
        raise ValueError("as it must")

    with pytest.raises(ValueError, match="as it must"):
        timed(fail, DECODE, timers)()
    now.passes(100)
    assert _used(timers) == {DECODE: 4}


def test_waiting_is_not_counted_and_other_tasks_run_meanwhile(timers: StageTimers, now: Time) -> None:
    async def read() -> str:
        now.passes(1)
        await asyncio.sleep(0)
        now.passes(2)
        return "body"

    async def both() -> tuple[str, None]:
        async def other() -> None:
            now.passes(50)

        return await asyncio.gather(timed(read, BODY, timers)(), other())

    assert asyncio.run(both())[0] == "body"
    assert _used(timers) == {BODY: 3}


def test_a_cancellation_reaches_the_coroutine(timers: StageTimers, now: Time) -> None:
    async def wait() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            now.passes(9)
            return "cancelled"
        return "not cancelled"

    async def cancel() -> str:
        task = asyncio.create_task(timed(wait, BODY, timers)())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(cancel()) == "cancelled"
    assert _used(timers) == {BODY: 9}


def test_an_error_comes_out_of_a_coroutine(timers: StageTimers) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        asyncio.run(timed(fail, BODY, timers)())


def test_http_is_the_remainder_of_the_total() -> None:
    clocked = dict.fromkeys(STAGES, 10.0) | {HTTP: 99.0}
    assert with_remainder(170.0, clocked) == clocked | {HTTP: 120.0}


def test_every_stage_exists_at_its_listed_location() -> None:
    """Runs in a separate process, because it changes the service's modules."""
    code = "import json, service.app; from tests.bench.stage_timing.timers import StageTimers, install; "
    code += "print(json.dumps(install(StageTimers())))"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    names = json.loads(process.stdout)
    for targets in STAGE_FUNCTIONS.values():
        for target in targets:
            assert any(name.startswith(target) for name in names), target
    assert {
        "service.inference.session:Session.run",
        "service.imaging.decode:open_image",
        "service.api.http.body:read_chunks",
    } <= set(names)


def test_a_stage_that_has_moved_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bench.stage_timing import timers as timers

    monkeypatch.setattr(timers, "STAGE_FUNCTIONS", {QUEUE: ("service.errors:no_such_function",)})
    with pytest.raises(LookupError, match=r"service\.errors:no_such_function does not exist"):
        timers.install(StageTimers())


def test_clocks_of_all_threads_are_added(timers: StageTimers, now: Time) -> None:
    from concurrent.futures import ThreadPoolExecutor

    work: Callable[[], None] = timed(lambda: now.passes(3), COMPUTE, timers)
    work()
    with ThreadPoolExecutor(1) as other:
        other.submit(work).result()
    assert _used(timers) == {COMPUTE: 6}
