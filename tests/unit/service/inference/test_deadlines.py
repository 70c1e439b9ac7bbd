"""Deadlines: each entry fails at its own time, whatever the order, and one that is dropped does not."""

import asyncio

import numpy as np
import pytest

from service.errors import DeadlineExceeded, ExpiredInQueue
from service.inference.batch import QueuedRequest
from service.inference.deadlines import Deadlines


def queued_request() -> QueuedRequest:
    return QueuedRequest(np.zeros((1, 1)), asyncio.get_running_loop().create_future(), 0.0)


def test_the_sooner_deadline_goes_first_though_it_came_later() -> None:
    async def test() -> None:
        deadlines, late, soon = Deadlines(), queued_request(), queued_request()
        deadlines.set(late, 0.1)
        deadlines.set(soon, 0.01)
        done, _ = await asyncio.wait([late.future, soon.future], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert done == {soon.future}
        for one in (soon, late):
            with pytest.raises(DeadlineExceeded):
                await asyncio.wait_for(one.future, 30)

    asyncio.run(test())


def test_who_is_answered_or_dropped_is_left_alone() -> None:
    async def test() -> None:
        deadlines, answered, dropped, waiting = Deadlines(), queued_request(), queued_request(), queued_request()
        for one in (answered, dropped, waiting):
            deadlines.set(one, 0.01)
        answered.future.set_result(None)  # type: ignore[arg-type]
        deadlines.discard(dropped)
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(waiting.future, 30)
        assert answered.future.result() is None
        assert not dropped.future.done()

    asyncio.run(test())


@pytest.mark.parametrize(("batched", "error"), [(0, ExpiredInQueue), (1, DeadlineExceeded)])
def test_a_request_of_which_nothing_was_run_has_expired_in_the_queue(
    batched: int, error: type[DeadlineExceeded]
) -> None:
    async def test() -> None:
        deadlines, request = Deadlines(), queued_request()
        request.batched = batched
        deadlines.set(request, 0.01)
        with pytest.raises(DeadlineExceeded) as raised:
            await asyncio.wait_for(request.future, 30)
        assert type(raised.value) is error

    asyncio.run(test())


def test_after_all_are_gone_the_next_one_is_still_seen() -> None:
    async def test() -> None:
        deadlines = Deadlines()
        for _ in range(2):
            one = queued_request()
            deadlines.set(one, 0.01)
            with pytest.raises(DeadlineExceeded):
                await asyncio.wait_for(one.future, 30)

    asyncio.run(test())
