"""The batcher's admission and priorities: early rejection, and background requests that neither hinder nor starve."""

import asyncio

import pytest

from service.errors import Overloaded
from service.inference.batcher import BACKGROUND_FIRST_EVERY
from tests.unit.service.batching import BatcherHarness, run_bounded, values


def test_the_background_takes_the_room_that_is_left() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_batch_size=3)
        running = await harness.submit(0)
        background = [await harness.submit(value, background=True) for value in (10, 11)]
        interactive = [await harness.submit(value) for value in (1, 2, 3, 4)]
        await harness.run_all()
        assert harness.model.batches == [[0], [1, 2, 3], [4, 10, 11]]
        assert [values(await task) for task in (running, *interactive, *background)] == [
            [0],
            [2],
            [4],
            [6],
            [8],
            [20],
            [22],
        ]

    run_bounded(test)


def test_the_background_does_not_starve() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_batch_size=1, max_queue_images=1000)
        await harness.submit(0)
        background = await harness.submit(-1, background=True)
        for value in range(1, 40):
            await harness.submit(value)
        for _ in range(BACKGROUND_FIRST_EVERY):
            await harness.run_next()
        assert values(await background) == [-2]
        await harness.run_all()

    run_bounded(test)


def test_what_would_be_late_is_refused_at_once_and_the_background_counts_only_for_itself() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        harness.batcher.reserve(1, timeout_s=1e-9)  # before the first batch nothing is known: it is let in
        harness.batcher.release(1)
        first = await harness.submit(0)
        await harness.run_next()
        await first
        running = await harness.submit(1)
        waiting = await harness.submit(*range(50), background=True)
        harness.batcher.reserve(1, timeout_s=1e-9)  # goes before all of these
        harness.batcher.release(1)
        with pytest.raises(Overloaded, match="longer than the request may") as raised:
            harness.batcher.reserve(1, timeout_s=1e-9, background=True)
        assert raised.value.retry_after_s > 0
        harness.batcher.reserve(1, timeout_s=60, background=True)
        harness.batcher.release(1)
        await harness.submit(*range(50))
        with pytest.raises(Overloaded):
            harness.batcher.reserve(1, timeout_s=1e-9)
        await harness.run_all()
        await asyncio.gather(running, waiting)
        harness.batcher.reserve(1, timeout_s=1e-9, background=True)  # nobody waits any more

    run_bounded(test)


def test_a_full_queue_is_seen_before_anything_is_reserved() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_queue_images=2)
        harness.batcher.admission.check_capacity()
        harness.batcher.reserve(2)
        with pytest.raises(Overloaded):
            harness.batcher.admission.check_capacity()
        harness.batcher.release(1)
        harness.batcher.admission.check_capacity()

    run_bounded(test)
