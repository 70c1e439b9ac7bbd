"""Large bodies are parsed in turns between clients."""

import asyncio
import threading
from contextlib import closing

import pytest

from service.api.http.parse_thread import ParseThread
from service.errors import TooLateToStart
from service.fair_threads import JOBS_PER_THREAD
from tests.unit.service.batching import ManualClock


def test_the_bodies_of_one_client_do_not_delay_another() -> None:
    order, hold = list[str](), threading.Event()

    async def test(thread: ParseThread) -> None:
        running = [asyncio.ensure_future(thread.run("flood", 1, hold.wait, 5)) for _ in range(JOBS_PER_THREAD)]
        flood = [asyncio.ensure_future(thread.run("flood", 1, order.append, "flood")) for _ in range(50)]
        await asyncio.sleep(0)
        other = asyncio.ensure_future(thread.run("another", 1, order.append, "another"))
        await asyncio.sleep(0)
        hold.set()
        await asyncio.gather(*running, *flood, other)

    with closing(ParseThread(10, lambda: None)) as thread:
        asyncio.run(test(thread))
    assert len(order) == 51
    assert order.index("another") <= 1


def test_a_body_that_would_wait_longer_than_a_request_may_take_is_rejected() -> None:
    """1 byte takes 10 ns. Bodies of other clients, and a body of any size without others before it, are accepted."""
    hold, rejected = threading.Event(), threading.Event()

    async def test(thread: ParseThread) -> None:
        running = asyncio.ensure_future(thread.run("flood", 1_100_000_000, hold.wait, 5))
        await asyncio.sleep(0)
        with pytest.raises(TooLateToStart, match=r"would start in 11\.0 s") as raised:
            await thread.run("flood", 1, int, "1")
        assert raised.value.retry_after_s == pytest.approx(1)
        assert rejected.is_set()
        other = asyncio.ensure_future(thread.run("another", 1_100_000_000, int, "7"))
        hold.set()
        assert await other == 7
        assert await running

    with closing(ParseThread(10, rejected.set, ManualClock())) as thread:
        asyncio.run(test(thread))


def test_a_body_whose_client_disconnects_is_not_parsed() -> None:
    parsed, hold = list[str](), threading.Event()

    async def test(thread: ParseThread) -> None:
        running = asyncio.ensure_future(thread.run("a", 1, hold.wait, 5))
        waiting = [asyncio.ensure_future(thread.run("a", 1, parsed.append, str(number))) for number in range(9)]
        await asyncio.sleep(0)
        for task in waiting[JOBS_PER_THREAD - 1 :]:
            task.cancel()
        hold.set()
        await asyncio.gather(running, *waiting, return_exceptions=True)

    with closing(ParseThread(10, lambda: None)) as thread:
        asyncio.run(test(thread))
    assert parsed == ["0"]
