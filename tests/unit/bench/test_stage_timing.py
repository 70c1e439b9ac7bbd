"""The clocks give each moment to one stage, stop while a coroutine waits, and find their stages in the service."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.stage_timing.measure_stages import with_remainder
from tests.bench.stage_timing.timers import BODY, COMPUTE, DECODE, HTTP, QUEUE, STAGES, WHERE, Clocks, timed

ROOT = Path(__file__).parents[3]


class Time:
    """Processor time that passes only when told."""

    def __init__(self) -> None:
        self.ns = 0

    def passes(self, ns: int) -> None:
        self.ns += ns


@pytest.fixture
def now() -> Time:
    return Time()


@pytest.fixture
def clocks(now: Time) -> Clocks:
    return Clocks(lambda: now.ns)


def _used(clocks: Clocks) -> dict[str, int]:
    return {stage: ns for stage, ns in clocks.totals_ns().items() if ns}


def test_an_inner_stage_is_not_counted_twice(clocks: Clocks, now: Time) -> None:
    compute = timed(lambda: now.passes(7), COMPUTE, clocks)

    def queue() -> None:
        now.passes(1)
        compute()
        now.passes(2)

    timed(queue, QUEUE, clocks)()
    now.passes(100)
    assert _used(clocks) == {QUEUE: 3, COMPUTE: 7}
    assert clocks.stretches()[QUEUE] == 2


def test_a_stage_within_itself_goes_on(clocks: Clocks, now: Time) -> None:
    inner = timed(lambda: now.passes(5), QUEUE, clocks)
    timed(lambda: (now.passes(1), inner()), QUEUE, clocks)()
    assert _used(clocks) == {QUEUE: 6}
    assert clocks.stretches()[QUEUE] == 1


def test_a_failing_function_stops_its_clock(clocks: Clocks, now: Time) -> None:
    def fail() -> None:
        now.passes(4)
        raise ValueError("as it must")

    with pytest.raises(ValueError, match="as it must"):
        timed(fail, DECODE, clocks)()
    now.passes(100)
    assert _used(clocks) == {DECODE: 4}


def test_waiting_costs_nothing_and_others_work_meanwhile(clocks: Clocks, now: Time) -> None:
    async def read() -> str:
        now.passes(1)
        await asyncio.sleep(0)
        now.passes(2)
        return "body"

    async def both() -> tuple[str, None]:
        async def other() -> None:
            now.passes(50)

        return await asyncio.gather(timed(read, BODY, clocks)(), other())

    assert asyncio.run(both())[0] == "body"
    assert _used(clocks) == {BODY: 3}


def test_a_cancellation_reaches_the_coroutine(clocks: Clocks, now: Time) -> None:
    async def wait() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            now.passes(9)
            return "cancelled"
        return "not cancelled"

    async def cancel() -> str:
        task = asyncio.create_task(timed(wait, BODY, clocks)())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(cancel()) == "cancelled"
    assert _used(clocks) == {BODY: 9}


def test_an_error_comes_out_of_a_coroutine(clocks: Clocks) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        asyncio.run(timed(fail, BODY, clocks)())


def test_http_is_what_is_left_of_the_whole() -> None:
    clocked = dict.fromkeys(STAGES, 10.0) | {HTTP: 99.0}
    assert with_remainder(170.0, clocked) == clocked | {HTTP: 120.0}


def test_every_stage_is_still_where_the_table_says() -> None:
    """In a process of its own, since it changes the service's modules."""
    code = (
        "import json, service.app; from tests.bench.stage_timing.timers import *; print(json.dumps(install(Clocks())))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = json.loads(done.stdout)
    for places in WHERE.values():
        for place in places:
            assert any(name.startswith(place) for name in names), place
    assert {
        "service.inference.session:Session.run",
        "service.imaging.decode:open_image",
        "service.api.http.body:read_body",
    } <= set(names)


def test_a_stage_that_has_moved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bench.stage_timing import timers as clocks

    monkeypatch.setattr(clocks, "WHERE", {QUEUE: ("service.errors:no_such_function",)})
    with pytest.raises(LookupError, match=r"service\.errors:no_such_function is gone"):
        clocks.install(Clocks())


def test_clocks_of_all_threads_are_added(clocks: Clocks, now: Time) -> None:
    from concurrent.futures import ThreadPoolExecutor

    work: Callable[[], None] = timed(lambda: now.passes(3), COMPUTE, clocks)
    work()
    with ThreadPoolExecutor(1) as other:
        other.submit(work).result()
    assert _used(clocks) == {COMPUTE: 6}
