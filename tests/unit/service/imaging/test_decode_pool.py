"""Decoders take turns between owners, run at most one job per thread, and drop cancelled jobs."""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.errors import DeadlineTooShort, TooLateToStart
from service.fair_threads import JOBS_PER_THREAD, MAX_SECONDS_PER_WORK, Owner
from service.imaging.decode_pool import LARGE_NICENESS, LARGE_WORK, SAFETY_FACTOR, DecodePool
from tests.unit.service.batching import ManualClock

UNIT_S = MAX_SECONDS_PER_WORK / 2


def with_decode_pool(
    threads: int, test: Callable[[DecodePool], Awaitable[None]], clock: Callable[[], float] = time.perf_counter
) -> None:
    async def run() -> None:
        decode_pool = DecodePool(threads, clock)
        await test(decode_pool)
        decode_pool.close()

    asyncio.run(run())


def test_a_flood_of_one_owner_does_not_delay_other_owners() -> None:
    order: list[str] = []

    async def test(decode_pool: DecodePool) -> None:
        flood = [decode_pool.run(Owner("flood"), 1, order.append, "flood") for _ in range(200)]
        others = [decode_pool.run(Owner(name), 1, order.append, name) for name in ("a", "b", "a")]
        await asyncio.gather(*flood, *others)

    with_decode_pool(1, test)
    assert len(order) == 203
    assert set(order[: JOBS_PER_THREAD + 4]) == {"flood", "a", "b"}
    assert order.index("a") <= JOBS_PER_THREAD + 1
    assert len(order) - 1 - order[::-1].index("a") <= JOBS_PER_THREAD + 4, "the second one of `a` takes the next turn"


def test_one_client_has_one_turn_however_many_models_it_uses() -> None:
    order: list[str] = []
    hold = threading.Event()

    async def test(decode_pool: DecodePool) -> None:
        running = [decode_pool.run(Owner("flood"), 1, hold.wait, 5) for _ in range(JOBS_PER_THREAD)]
        flood = [
            decode_pool.run(Owner("flood", number % 20), 1, order.append, f"flood {number}") for number in range(40)
        ]
        others = [decode_pool.run(Owner("a"), 1, order.append, "a") for _ in range(2)]
        hold.set()
        await asyncio.gather(*running, *flood, *others)

    with_decode_pool(1, test)
    assert order[:4] == ["flood 0", "a", "flood 1", "a"]
    assert order[4:] == [f"flood {number}" for number in range(2, 40)], "its models take turns as well"


def test_the_expected_time_counts_a_client_once_however_many_models_it_uses() -> None:
    clock, hold = ManualClock(), threading.Event()

    def job(units: float) -> None:
        clock.now_s += units * UNIT_S

    async def test(decode_pool: DecodePool) -> None:
        for _ in range(300):
            await decode_pool.run(Owner("a"), 3, job, 3.0)
        waiting = [decode_pool.run(Owner("flood", model), 10, hold.wait, 5) for model in range(20)]
        for owner, ahead in ((Owner("a"), 2 + 2), (Owner("flood", 0), 12 + 19 * 10), (Owner("flood", 99), 20 * 2)):
            done_s = (ahead + (2 if owner == Owner("flood", 99) else 0)) * SAFETY_FACTOR * UNIT_S
            decode_pool.check_in_time(owner, 2, done_s * 1.01)
            with pytest.raises(TooLateToStart):
                decode_pool.check_in_time(owner, 2, done_s * 0.99)
        hold.set()
        await asyncio.gather(*waiting)

    with_decode_pool(1, test, clock)


def test_files_that_are_slow_to_open_do_not_make_large_images_look_too_late() -> None:
    """Their work is estimated from their few bytes and pixels."""
    clock = ManualClock()

    def open_slowly() -> None:
        clock.now_s += 0.1

    async def test(decode_pool: DecodePool) -> None:
        for _ in range(100):
            await decode_pool.run(Owner("attacker"), 5_000, open_slowly)
        decode_pool.check_in_time(Owner("a"), 1_200_000, 0.5)

    with_decode_pool(2, test, clock)


def test_one_owner_is_served_in_order() -> None:
    order: list[int] = []

    async def test(decode_pool: DecodePool) -> None:
        assert await asyncio.gather(
            *(decode_pool.run(Owner("m"), 1, lambda n: order.append(n) or n, n) for n in range(50))
        ) == [*range(50)]

    with_decode_pool(1, test)
    assert order == [*range(50)]


def test_a_job_without_work_may_end_after_all_others_of_its_owner() -> None:
    """A chunk of images that could not be read has no work, and is added while a real image is decoded."""
    errors: list[dict[str, object]] = []

    async def test(decode_pool: DecodePool) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await asyncio.gather(decode_pool.run(Owner("m"), 5, lambda: None), decode_pool.run(Owner("m"), 0, lambda: None))

    with_decode_pool(1, test)
    assert errors == []


def test_all_threads_work_and_no_more_than_those() -> None:
    running, max_running, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3, timeout=30)

    def job() -> None:
        nonlocal running, max_running
        with lock:
            running += 1
            max_running = max(max_running, running)
        together.wait()
        with lock:
            running -= 1

    async def test(decode_pool: DecodePool) -> None:
        await asyncio.gather(*(decode_pool.run(Owner("m"), 1, job) for _ in range(12)))

    with_decode_pool(3, test)
    assert max_running == 3


def test_an_error_reaches_only_its_caller() -> None:
    async def test(decode_pool: DecodePool) -> None:
        bad, good = decode_pool.run(Owner("m"), 1, int, "x"), decode_pool.run(Owner("m"), 1, int, "7")
        with pytest.raises(ValueError, match="'x'"):
            await bad
        assert await good == 7

    with_decode_pool(1, test)


def test_a_thread_that_cannot_start_loses_no_job_and_no_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused: list[object] = []
    submit = ThreadPoolExecutor.submit

    def refuse(executor: ThreadPoolExecutor, *args: Any) -> Any:
        refused.append(executor)
        raise RuntimeError("can't start new thread")

    hold = threading.Event()

    async def test(decode_pool: DecodePool) -> None:
        running = [decode_pool.run(Owner("m"), 1, hold.wait, 5) for _ in range(JOBS_PER_THREAD)]
        waiting = [decode_pool.run(Owner("m"), 1, int, "1") for _ in range(2 * JOBS_PER_THREAD)]
        monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
        hold.set()
        _, unanswered = await asyncio.wait([*running, *waiting], timeout=10)
        assert not unanswered
        assert [job.result() for job in running] == [True] * JOBS_PER_THREAD
        assert {type(job.exception()) for job in waiting} == {RuntimeError}
        monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
        assert await decode_pool.run(Owner("m"), 1, int, "7") == 7

    with_decode_pool(1, test)
    assert len(refused) == 2 * JOBS_PER_THREAD


def test_a_cancelled_job_is_not_started_and_frees_its_slot() -> None:
    started: list[int] = []
    hold = threading.Event()

    async def test(decode_pool: DecodePool) -> None:
        first = decode_pool.run(Owner("m"), 1, hold.wait, 5)
        waiting = [decode_pool.run(Owner("m"), 1, started.append, n) for n in range(20)]
        for job in waiting[JOBS_PER_THREAD:]:
            job.cancel()
        hold.set()
        await first
        await decode_pool.run(Owner("m"), 1, started.append, 99)

    with_decode_pool(1, test)
    assert started == [*range(JOBS_PER_THREAD), 99]


def test_a_job_cancelled_while_running_frees_its_thread() -> None:
    hold = threading.Event()

    async def test(decode_pool: DecodePool) -> None:
        running = decode_pool.run(Owner("m"), 1, hold.wait, 5)
        await asyncio.sleep(0.01)
        running.cancel()
        hold.set()
        assert await decode_pool.run(Owner("m"), 1, int, "1") == 1
        assert await asyncio.gather(*(decode_pool.run(Owner("m"), 1, int, str(n)) for n in range(9))) == [*range(9)]

    with_decode_pool(1, test)


def test_small_images_do_not_wait_for_large_ones() -> None:
    hold = threading.Event()

    async def test(decode_pool: DecodePool) -> None:
        large = [decode_pool.run(Owner("flood"), LARGE_WORK + 1, hold.wait, 5) for _ in range(9)]
        assert await decode_pool.run(Owner("flood"), LARGE_WORK, int, "7") == 7
        assert not any(job.done() for job in large)
        hold.set()
        await asyncio.gather(*large)

    with_decode_pool(1, test)


def test_the_expected_time_is_that_of_the_work_ahead() -> None:
    """A unit of work takes UNIT_S on one of two threads. A client waits for its own work, and for at most as much work
    of each other client."""
    clock, hold = ManualClock(), threading.Event()

    def job(units: float) -> None:
        clock.now_s += units * UNIT_S

    async def test(decode_pool: DecodePool) -> None:
        for _ in range(300):  # until the initial expectation no longer has an effect
            await decode_pool.run(Owner("a"), 3, job, 3.0)
        waiting = [decode_pool.run(Owner(owner), work, hold.wait, 5) for owner, work in (("a", 8), ("a", 20), ("b", 2))]
        for owner, ahead in (("a", 28 + 2), ("b", 2 + 4), ("c", 2 + 2)):
            done_s = (ahead + 2) / 2 * SAFETY_FACTOR * UNIT_S
            decode_pool.check_in_time(Owner(owner), 2, done_s * 1.01)
            with pytest.raises(TooLateToStart) as raised:
                decode_pool.check_in_time(Owner(owner), 2, done_s * 0.75)
            assert raised.value.retry_after_s == pytest.approx(done_s / 4, rel=1e-3)
        decode_pool.check_in_time(Owner("a"), LARGE_WORK + 1, LARGE_WORK)  # other threads, which have no waiting jobs
        waiting[1].cancel()
        await asyncio.sleep(0)
        decode_pool.check_in_time(Owner("a"), 2, (8 + 2 + 2) / 2 * SAFETY_FACTOR * UNIT_S * 1.01)
        hold.set()
        await asyncio.gather(waiting[0], waiting[2])
        decode_pool.check_in_time(Owner("a"), 2, 2 / 2 * SAFETY_FACTOR * UNIT_S * 1.01)

    with_decode_pool(2, test, clock)


def test_a_time_that_idle_threads_cannot_keep_is_too_short() -> None:
    """The cause is the limit of the client, and not the work of others. Each job has one of two threads."""
    clock = ManualClock()

    def job(units: float) -> None:
        clock.now_s += units * UNIT_S

    async def test(decode_pool: DecodePool) -> None:
        for _ in range(300):
            await decode_pool.run(Owner("a"), 3, job, 3.0)
        with pytest.raises(DeadlineTooShort, match=r"Decoding the images takes 5.5e-07 s, longer than the time limit"):
            decode_pool.check_in_time(Owner("a"), 10, 5.4 * UNIT_S)
        decode_pool.check_in_time(Owner("a"), 10, 5.6 * UNIT_S)
        for works, alone_s in (([10], 10), ([4, 6], 6), ([4, 6, 6, 4], 10)):
            assert decode_pool.alone_s(works) == pytest.approx(alone_s * SAFETY_FACTOR * UNIT_S, rel=1e-3)

    with_decode_pool(2, test, clock)


def test_an_image_is_forgotten_when_its_job_is_cancelled() -> None:
    """A client that disconnects must not leave its image in the queue."""
    hold = threading.Event()

    class Image:
        pass

    async def test(decode_pool: DecodePool) -> None:
        running = [decode_pool.run(Owner("m"), 1, hold.wait, 5) for _ in range(JOBS_PER_THREAD)]
        image = Image()
        reference = weakref.ref(image)
        waiting = decode_pool.run(Owner("m"), 1, id, image)
        del image
        assert reference() is not None
        waiting.cancel()
        await asyncio.sleep(0)
        assert reference() is None
        hold.set()
        await asyncio.gather(*running)

    with_decode_pool(1, test)


def test_large_images_yield_the_processor_to_small_ones_and_the_event_loop() -> None:
    async def test(decode_pool: DecodePool) -> None:
        own = os.nice(0)
        assert await decode_pool.run(Owner("a"), LARGE_WORK, os.nice, 0) == own
        assert await decode_pool.run(Owner("a"), LARGE_WORK + 1, os.nice, 0) == min(19, own + LARGE_NICENESS)
        assert os.nice(0) == own

    with_decode_pool(1, test)
