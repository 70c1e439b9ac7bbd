"""The batcher's admission and priorities: early rejection; background requests neither delay others nor starve."""

import asyncio
from functools import partial
from typing import Any

import pytest

from service.errors import DeadlineTooShort, ExpiredInQueue, QueueFull, TooLateToStart, TooManyImages
from service.inference.batcher import PROBE_INTERVAL_S
from service.inference.request_queue import BACKGROUND_FIRST_EVERY
from tests.unit.service.batching import (
    BatcherHarness,
    ManualClock,
    TimedModel,
    images,
    run_callbacks,
    run_in_manual_time,
    values,
)


def test_background_requests_fill_the_remaining_slots_of_a_batch() -> None:
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

    run_in_manual_time(test)


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
        assert harness.model.batches.index([-1]) == BACKGROUND_FIRST_EVERY - 1
        await harness.run_all()

    run_in_manual_time(test)


def timed_harness(**options: Any) -> tuple[BatcherHarness, ManualClock]:
    """A batcher with 8 images per batch whose model takes 10 ms per image, as measured, and has just run."""
    clock = ManualClock()
    harness = BatcherHarness(
        **{"max_batch_size": 8, "run_s_by_size": {1: 0.01, 8: 0.08}, "clock": clock, "model": TimedModel(clock)}
        | options
    )
    return harness, clock


def test_a_run_whose_outputs_the_busy_event_loop_takes_late_raises_the_margin() -> None:
    async def test() -> None:
        harness, clock = timed_harness()
        request = await harness.submit(0)
        harness.executor.run_next()
        clock.now_s += 0.01  # the run took as long as expected, and the event loop took the same time again
        await run_callbacks()
        assert values(await request) == [0]
        reserve = harness.batcher.reserve
        with pytest.raises(TooLateToStart):
            reserve(1, timeout_s=0.0179)  # 10 ms for the run, times 1 + 4 deviations of a fifth
        reserve(1, timeout_s=0.0181)
        harness.batcher.release(1)

    run_in_manual_time(test)


def test_late_requests_are_rejected_at_once_without_counting_the_background() -> None:
    async def test() -> None:
        harness, clock = timed_harness()
        reserve = harness.batcher.reserve
        running = await harness.submit(0)
        clock.now_s += 0.004
        reserve(1, timeout_s=0.0177)  # 6 ms of the current run, 10 ms of its own run, and a tenth for safety
        harness.batcher.release(1)
        with pytest.raises(TooLateToStart, match="longer than its time limit") as raised:
            reserve(1, timeout_s=0.0166)
        assert raised.value.retry_after_s == pytest.approx(0.001)
        waiting = [await harness.submit(*range(8), background=True) for _ in range(2)]
        reserve(1, timeout_s=0.0177)  # runs before all of these requests
        harness.batcher.release(1)
        with pytest.raises(TooLateToStart):
            reserve(1, timeout_s=0.19, background=True)
        reserve(1, timeout_s=0.2, background=True)
        harness.batcher.release(1)
        await harness.run_all()
        await asyncio.gather(running, *waiting)
        reserve(1, timeout_s=0.0221, background=True)  # the queue is empty

    run_in_manual_time(test)


def test_the_check_before_decoding_rejects_what_would_be_late() -> None:
    """Two images take 20 ms behind a run of 10 ms, and a tenth for safety."""

    async def test() -> None:
        harness, _ = timed_harness()
        running = await harness.submit(0)
        harness.batcher.check_capacity(2, timeout_s=0.0331)
        with pytest.raises(TooLateToStart) as raised:
            harness.batcher.check_capacity(2, timeout_s=0.032)
        assert raised.value.retry_after_s == pytest.approx(0.001)
        with pytest.raises(DeadlineTooShort):
            harness.batcher.check_capacity(2, timeout_s=0.019)
        harness.batcher.check_capacity(1, timeout_s=0.0221)
        harness.batcher.check_capacity(2)  # no deadline
        await harness.run_all()
        await running
        with pytest.raises(DeadlineTooShort):
            harness.batcher.check_capacity(2, timeout_s=0.019)  # the model has just run, so the expectation holds

    run_in_manual_time(test)


def test_an_idle_model_is_probed_after_a_slow_run() -> None:
    """Otherwise every request would be rejected forever, and no run could show that the model is fast."""

    async def test() -> None:
        harness, clock = timed_harness(run_s_by_size={1: 5.0, 8: 40.0})
        first = await harness.submit(1, timeout_s=0.5)  # its first run is admitted
        await harness.run_all()
        await first
        with pytest.raises(DeadlineTooShort):
            harness.batcher.reserve(1, timeout_s=0.5)
        clock.now_s += PROBE_INTERVAL_S
        second = await harness.submit(2, timeout_s=0.5)
        await harness.run_all()
        assert values(await second) == [4]

    run_in_manual_time(test)


def test_a_batch_is_small_enough_for_its_most_urgent_request() -> None:
    """There are 32 images of 10 ms each and 250 ms left, of which a tenth is a reserve. In one batch, all of them would
    be late."""

    async def test() -> None:
        harness, _ = timed_harness(max_batch_size=32, run_s_by_size={1: 0.01, 32: 0.32})
        running = await harness.submit(-1)
        harness.batcher.reserve(32)  # as if the model's speed had been unknown
        tasks = [asyncio.create_task(harness.batcher.infer(images(value), 0.26)) for value in range(32)]
        await run_callbacks()
        await harness.run_all()  # the first run takes 10 ms
        results = await asyncio.gather(running, *tasks, return_exceptions=True)
        assert [len(batch) for batch in harness.model.batches] == [1, 22, 2]
        assert [isinstance(result, ExpiredInQueue) for result in results[1:]] == [False] * 24 + [True] * 8
        assert harness.batcher.queued_images == 0

    run_in_manual_time(test)


def test_a_request_that_cannot_be_in_time_fails_when_the_batch_forms_and_is_not_run() -> None:
    async def test() -> None:
        harness, clock = timed_harness()
        running = await harness.submit(0)
        late = await harness.submit(1, timeout_s=0.05)
        good = await harness.submit(2, timeout_s=5.0)
        clock.now_s += 0.045
        await harness.run_next()
        with pytest.raises(ExpiredInQueue, match="too short for a run"):
            await late
        await harness.run_all()
        assert values(await good) == [4]
        await running
        assert harness.model.batches == [[0], [2]]
        assert harness.batcher.queued_images == 0

    run_in_manual_time(test)


def test_the_next_run_can_start_when_one_of_several_instances_is_free() -> None:
    """Two runs of 80 ms are in progress. A third batch can start after half of their time, and takes 10 ms."""

    async def test() -> None:
        harness, _ = timed_harness(instances=2)
        running = [await harness.submit(*range(8)) for _ in range(2)]
        harness.batcher.check_capacity(1, timeout_s=0.09 * 1.1 + 0.001)
        with pytest.raises(TooLateToStart):
            harness.batcher.check_capacity(1, timeout_s=0.09 * 1.1 - 0.001)
        await harness.run_all()
        await asyncio.gather(*running)

    run_in_manual_time(test)


def test_a_model_that_hangs_rejects_requests_although_its_queue_is_short() -> None:
    """A run of 10 ms used to count as done once it was overdue, so each request was admitted and then expired."""

    async def test() -> None:
        harness, clock = timed_harness()
        running = await harness.submit(0)
        batcher = harness.batcher
        clock.now_s += 2.01  # 2 s overdue
        for check in (batcher.reserve, batcher.check_capacity):
            with pytest.raises(TooLateToStart) as raised:
                check(1, timeout_s=2.1)  # 2 s and the request's own 10 ms, and a tenth for safety
            assert raised.value.retry_after_s == pytest.approx(2.01 * 1.1 - 2.1)
        batcher.reserve(1, timeout_s=2.22)
        batcher.release(1)
        await harness.run_all()
        assert values(await running) == [0]

    run_in_manual_time(test)


def test_an_instance_that_hangs_rejects_no_request_while_another_runs() -> None:
    async def test() -> None:
        harness, clock = timed_harness(instances=2)
        running = [await harness.submit(0)]
        clock.now_s += 10
        running.append(await harness.submit(1))
        harness.batcher.reserve(1, timeout_s=0.0221)
        harness.batcher.release(1)
        await harness.run_all()
        await asyncio.gather(*running)

    run_in_manual_time(test)


def test_a_late_request_beside_a_run_is_dropped_however_long_ago_a_run_has_ended() -> None:
    async def test() -> None:
        harness, clock = timed_harness(instances=2)
        running = await harness.submit(0)
        clock.now_s += PROBE_INTERVAL_S
        harness.batcher.reserve(1)
        late = asyncio.create_task(harness.batcher.infer(images(1), 0.005))
        await run_callbacks()
        with pytest.raises(ExpiredInQueue):
            await late
        await harness.run_all()
        await running
        assert harness.model.batches == [[0]]

    run_in_manual_time(test)


@pytest.mark.parametrize("load", [1, 2, 4, 8])
def test_under_overload_nearly_all_that_the_model_can_do_is_answered_in_time(load: int) -> None:
    """100 images/s, batches of 8, a timeout of 0.5 s: a simulation in which only the clock of the batcher passes."""

    async def test() -> None:
        harness, clock = timed_harness(max_queue_images=10_000)
        in_time = rejected = 0
        tasks: list[asyncio.Task[Any]] = []

        def count(task: asyncio.Task[Any], due_s: float) -> None:
            nonlocal in_time
            in_time += task.exception() is None and clock.now_s <= due_s

        arrivals_s = [100.0 + number / (100 * load) for number in range(1000 * load)]
        for arrival_s in arrivals_s:
            while clock.now_s < arrival_s and harness.executor.pending:
                await harness.run_next()
            clock.now_s = max(clock.now_s, arrival_s)
            try:
                tasks.append(await harness.submit(1, timeout_s=0.5))
            except TooLateToStart:
                rejected += 1
            else:
                tasks[-1].add_done_callback(partial(count, due_s=clock.now_s + 0.5))
        await harness.run_all()
        assert in_time >= 0.9 * 100 * (clock.now_s - 100)
        assert rejected >= 0.9 * (1000 * load - 100 * (clock.now_s - 100))
        await asyncio.gather(*tasks, return_exceptions=True)

    run_in_manual_time(test)


def test_a_full_queue_is_seen_before_anything_is_reserved() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_queue_images=2)
        harness.batcher.check_capacity()
        harness.batcher.reserve(2)
        with pytest.raises(QueueFull):
            harness.batcher.check_capacity()
        harness.batcher.release(1)
        harness.batcher.check_capacity()

    run_in_manual_time(test)


def test_the_demand_is_the_run_time_in_full_batches_of_what_was_accepted_or_rejected_because_of_the_load() -> None:
    async def test() -> None:
        demand_s: list[float] = []
        harness = BatcherHarness(
            max_batch_size=8,
            max_queue_images=10,
            instances=2,
            run_s_by_size={1: 0.03, 8: 0.08},
            on_demand=demand_s.append,
        )
        reserve = harness.batcher.reserve
        reserve(6)
        with pytest.raises(QueueFull):
            reserve(8)
        with pytest.raises(QueueFull):
            harness.batcher.check_capacity(5)
        harness.batcher.check_capacity(1)  # the image is counted when it is reserved
        with pytest.raises(TooManyImages):
            reserve(11)
        with pytest.raises(DeadlineTooShort):
            reserve(1, timeout_s=0.001)
        assert demand_s == pytest.approx([0.03, 0.04, 0.025])

    run_in_manual_time(test)
