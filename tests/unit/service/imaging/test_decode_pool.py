"""Decoders take turns by owner, never more at once than there are threads, and forget what nobody waits for."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from service.imaging.decode_pool import JOBS_PER_THREAD, DecodePool


def with_decode_pool(threads: int, test: Callable[[DecodePool], Awaitable[None]]) -> None:
    async def run() -> None:
        decode_pool = DecodePool(threads)
        await test(decode_pool)
        decode_pool.close()

    asyncio.run(run())


def test_a_flood_lets_every_other_owner_through_at_once() -> None:
    order: list[str] = []

    async def test(decode_pool: DecodePool) -> None:
        flood = [decode_pool.run("flood", order.append, "flood") for _ in range(200)]
        others = [decode_pool.run(name, order.append, name) for name in ("a", "b", "a")]
        await asyncio.gather(*flood, *others)

    with_decode_pool(1, test)
    assert len(order) == 203
    assert set(order[: JOBS_PER_THREAD + 4]) == {"flood", "a", "b"}
    assert order.index("a") <= JOBS_PER_THREAD + 1
    assert len(order) - 1 - order[::-1].index("a") <= JOBS_PER_THREAD + 4, "the second one of `a` takes the next turn"


def test_one_owner_is_served_in_order() -> None:
    order: list[int] = []

    async def test(decode_pool: DecodePool) -> None:
        assert await asyncio.gather(*(decode_pool.run("m", lambda n: order.append(n) or n, n) for n in range(50))) == [
            *range(50)
        ]

    with_decode_pool(1, test)
    assert order == [*range(50)]


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
        await asyncio.gather(*(decode_pool.run("m", job) for _ in range(12)))

    with_decode_pool(3, test)
    assert max_running == 3


def test_an_error_reaches_its_caller_and_nobody_else() -> None:
    async def test(decode_pool: DecodePool) -> None:
        bad, good = decode_pool.run("m", int, "x"), decode_pool.run("m", int, "7")
        with pytest.raises(ValueError, match="'x'"):
            await bad
        assert await good == 7

    with_decode_pool(1, test)


def test_what_was_cancelled_is_not_started_and_its_place_is_free() -> None:
    started: list[int] = []
    hold = threading.Event()

    async def test(decode_pool: DecodePool) -> None:
        first = decode_pool.run("m", hold.wait, 5)
        waiting = [decode_pool.run("m", started.append, n) for n in range(20)]
        for job in waiting[JOBS_PER_THREAD:]:
            job.cancel()
        hold.set()
        await first
        await decode_pool.run("m", started.append, 99)

    with_decode_pool(1, test)
    assert started == [*range(JOBS_PER_THREAD), 99]


def test_one_that_is_cancelled_while_it_runs_gives_its_thread_back() -> None:
    hold = threading.Event()

    async def test(decode_pool: DecodePool) -> None:
        running = decode_pool.run("m", hold.wait, 5)
        await asyncio.sleep(0.01)
        running.cancel()
        hold.set()
        assert await decode_pool.run("m", int, "1") == 1
        assert await asyncio.gather(*(decode_pool.run("m", int, str(n)) for n in range(9))) == [*range(9)]

    with_decode_pool(1, test)
