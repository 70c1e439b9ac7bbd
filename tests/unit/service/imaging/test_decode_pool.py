"""Decoders take turns by owner, never more at once than there are threads, and forget what nobody waits for."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from service.imaging.decode_pool import AT_HAND, Decoders


def with_decoders(threads: int, test: Callable[[Decoders], Awaitable[None]]) -> None:
    async def run() -> None:
        decoders = Decoders(threads)
        await test(decoders)
        decoders.close()

    asyncio.run(run())


def test_a_flood_lets_every_other_owner_through_at_once() -> None:
    order: list[str] = []

    async def test(decoders: Decoders) -> None:
        flood = [decoders.run("flood", order.append, "flood") for _ in range(200)]
        others = [decoders.run(name, order.append, name) for name in ("a", "b", "a")]
        await asyncio.gather(*flood, *others)

    with_decoders(1, test)
    assert len(order) == 203
    assert set(order[: AT_HAND + 4]) == {"flood", "a", "b"}
    assert order.index("a") <= AT_HAND + 1
    assert len(order) - 1 - order[::-1].index("a") <= AT_HAND + 4, "the second one of `a` takes the next turn"


def test_one_owner_is_served_in_order() -> None:
    order: list[int] = []

    async def test(decoders: Decoders) -> None:
        assert await asyncio.gather(*(decoders.run("m", lambda n: order.append(n) or n, n) for n in range(50))) == [
            *range(50)
        ]

    with_decoders(1, test)
    assert order == [*range(50)]


def test_all_threads_work_and_no_more_than_those() -> None:
    now, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3, timeout=30)

    def job() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait()
        with lock:
            now -= 1

    async def test(decoders: Decoders) -> None:
        await asyncio.gather(*(decoders.run("m", job) for _ in range(12)))

    with_decoders(3, test)
    assert most == 3


def test_an_error_reaches_its_caller_and_nobody_else() -> None:
    async def test(decoders: Decoders) -> None:
        bad, good = decoders.run("m", int, "x"), decoders.run("m", int, "7")
        with pytest.raises(ValueError, match="'x'"):
            await bad
        assert await good == 7

    with_decoders(1, test)


def test_what_was_cancelled_is_not_begun_and_its_place_is_free() -> None:
    begun: list[int] = []
    hold = threading.Event()

    async def test(decoders: Decoders) -> None:
        first = decoders.run("m", hold.wait, 5)
        waiting = [decoders.run("m", begun.append, n) for n in range(20)]
        for job in waiting[AT_HAND:]:
            job.cancel()
        hold.set()
        await first
        await decoders.run("m", begun.append, 99)

    with_decoders(1, test)
    assert begun == [*range(AT_HAND), 99]


def test_one_that_is_cancelled_while_it_runs_gives_its_thread_back() -> None:
    hold = threading.Event()

    async def test(decoders: Decoders) -> None:
        running = decoders.run("m", hold.wait, 5)
        await asyncio.sleep(0.01)
        running.cancel()
        hold.set()
        assert await decoders.run("m", int, "1") == 1
        assert await asyncio.gather(*(decoders.run("m", int, str(n)) for n in range(9))) == [*range(9)]

    with_decoders(1, test)
