"""Deadlines: each request fails at its own time, in any order, and a discarded request does not fail."""

import asyncio

import numpy as np
import pytest

from service.errors import DeadlineExceeded, ExpiredInQueue
from service.inference.batch import QueuedRequest
from service.inference.deadlines import MIN_INTERVAL_S, Deadlines
from tests.unit.service.batching import pass_time, run_in_manual_time


def queued_request(batched: int = 0) -> QueuedRequest:
    return QueuedRequest(np.zeros((1, 1)), asyncio.get_running_loop().create_future(), 0.0, batched=batched)


def is_expired(request: QueuedRequest) -> bool:
    return request.future.done() and isinstance(request.future.exception(), DeadlineExceeded)


def test_the_earlier_deadline_expires_first() -> None:
    async def test() -> None:
        deadlines, late, soon = Deadlines(), queued_request(), queued_request()
        deadlines.set(late, 0.1)
        deadlines.set(soon, 0.01)
        seen = []
        for seconds in (0.0099, 0.0002, 0.0898, 0.0002):  # just before and just after each deadline
            await pass_time(seconds)
            seen.append((is_expired(soon), is_expired(late)))
        assert seen == [(False, False), (True, False), (True, False), (True, True)]

    run_in_manual_time(test)


def test_deadlines_that_are_close_together_share_a_pass() -> None:
    async def test() -> None:
        deadlines, requests = Deadlines(), [queued_request() for _ in range(3)]
        for number, request in enumerate(requests):
            deadlines.set(request, 0.01 + number * MIN_INTERVAL_S / 4)
        await pass_time(0.01)
        await pass_time(MIN_INTERVAL_S * 3 / 4)  # all are due
        assert [is_expired(request) for request in requests] == [True, False, False]
        await pass_time(MIN_INTERVAL_S / 4)
        assert [is_expired(request) for request in requests] == [True, True, True]

    run_in_manual_time(test)


def test_a_request_that_is_answered_or_discarded_is_left_alone() -> None:
    async def test() -> None:
        deadlines, answered, discarded, waiting = Deadlines(), queued_request(), queued_request(), queued_request()
        for one in (answered, discarded, waiting):
            deadlines.set(one, 0.01)
        answered.future.set_result(None)  # type: ignore[arg-type]
        deadlines.discard(discarded)
        await pass_time(0.02)
        assert is_expired(waiting)
        assert answered.future.result() is None
        assert not discarded.future.done()

    run_in_manual_time(test)


@pytest.mark.parametrize(
    ("batched", "error", "message"),
    [
        (0, ExpiredInQueue, "The request waited for the model until its time limit was too short for a run."),
        (1, DeadlineExceeded, "The model did not finish within the request's time limit."),
    ],
)
def test_a_request_of_which_nothing_was_run_has_expired_in_the_queue(
    batched: int, error: type[DeadlineExceeded], message: str
) -> None:
    async def test() -> None:
        deadlines, request = Deadlines(), queued_request(batched)
        deadlines.set(request, 0.01)
        await pass_time(0.01)
        expired = request.future.exception()
        assert type(expired) is error
        assert str(expired) == message

    run_in_manual_time(test)


def test_a_deadline_set_after_all_others_have_expired_expires() -> None:
    async def test() -> None:
        deadlines = Deadlines()
        for _ in range(2):
            one = queued_request()
            deadlines.set(one, 0.01)
            await pass_time(0.01)
            assert is_expired(one)

    run_in_manual_time(test)
