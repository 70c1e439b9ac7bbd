"""The batcher: the requests that share a batch, are dropped or are rejected. Every request ends."""

import asyncio
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DeadlineExceeded, Draining, ExpiredInQueue, QueueFull, TooManyImages
from service.inference.admission import UNMEASURED_RETRY_S
from service.inference.batch import InferenceResult
from service.inference.batcher import DEEP_QUEUE_BATCHES
from tests.unit.service.batching import (
    BatcherHarness,
    ManualClock,
    images,
    pass_time,
    run_callbacks,
    run_in_manual_time,
    values,
)


def test_a_request_cancelled_in_the_queue_affects_no_other() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        first = await harness.submit(0)
        four = [await harness.submit(value) for value in (1, 2, 3, 4)]
        four[1].cancel()
        await harness.run_all()
        assert values(await first) == [0]
        assert [values(await task) for task in four if not task.cancelled()] == [[2], [6], [8]]
        assert harness.model.batches == [[0], [1, 3, 4]]

    run_in_manual_time(test)


def test_a_request_cancelled_while_its_batch_runs_affects_no_other() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        one, two = harness.enqueue(1), harness.enqueue(2)
        await run_callbacks()
        one.cancel()
        await harness.run_next()
        assert values(await two) == [4]
        assert harness.model.batches == [[1, 2]]

    run_in_manual_time(test)


def test_requests_of_one_loop_iteration_share_a_batch() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        tasks = [harness.enqueue(value) for value in range(3)]
        await run_callbacks()
        await harness.run_next()
        assert [(await task).batch_size for task in tasks] == [3, 3, 3]

    run_in_manual_time(test)


def test_requests_during_a_run_form_the_next_batch_up_to_the_limit() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_batch_size=4)
        tasks = [await harness.submit(value) for value in range(7)]
        await harness.run_all()
        assert harness.model.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert [values(await task) for task in tasks] == [[2 * value] for value in range(7)]

    run_in_manual_time(test)


def test_a_deep_queue_is_worked_off_in_larger_batches() -> None:
    async def test() -> None:
        harness = BatcherHarness(normal_batch_size=2)
        tasks = [await harness.submit(value) for value in range(1 + DEEP_QUEUE_BATCHES * 4 + 1)]
        await harness.run_all()
        assert [len(batch) for batch in harness.model.batches] == [1, 4, *[2] * 6, 1]
        assert [values(await task) for task in tasks] == [[2 * value] for value in range(len(tasks))]

    run_in_manual_time(test)


def test_a_large_request_is_split_over_batches_and_rejoined_in_order() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_batch_size=4)
        small, large, last = await harness.submit(0), await harness.submit(*range(1, 11)), await harness.submit(99)
        await harness.run_all()
        assert harness.model.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 99]]
        assert values(await small) == [0]
        assert values(await large) == [2 * value for value in range(1, 11)]
        assert values(await last) == [198]

    run_in_manual_time(test)


def test_a_full_queue_rejects_requests_until_slots_are_released() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_queue_images=5)
        running = await harness.submit(0)
        waiting = await harness.submit(1, 2, 3, 4)
        with pytest.raises(QueueFull) as rejected:
            harness.enqueue(5, 6)
        assert rejected.value.retry_after_s == UNMEASURED_RETRY_S
        await harness.run_all()
        again = await harness.submit(5, 6)
        await harness.run_all()
        assert [len((await task).outputs) for task in (running, waiting, again)] == [1, 4, 2]

    run_in_manual_time(test)


def test_a_request_that_can_never_be_queued_raises_too_many_images() -> None:
    async def test() -> None:
        with pytest.raises(TooManyImages, match="6 images, and the queue holds at most 5"):
            BatcherHarness(max_queue_images=5).enqueue(*range(6))

    run_in_manual_time(test)


def test_an_empty_request_is_a_programming_error() -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match="at least one image"):
            await BatcherHarness().enqueue()

    run_in_manual_time(test)


def test_cancelling_releases_the_slots_at_once() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_queue_images=4)
        await harness.submit(0)
        waiting = await harness.submit(1, 2, 3, 4)
        waiting.cancel()
        await run_callbacks()
        assert harness.batcher.queued_images == 0
        again = await harness.submit(5, 6, 7, 8)
        await harness.run_all()
        assert values(await again) == [10, 12, 14, 16]
        assert harness.model.batches == [[0], [5, 6, 7, 8]]

    run_in_manual_time(test)


def test_cancelled_in_the_very_turn_in_which_the_batch_forms() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        running, leaver = await harness.submit(0), await harness.submit(1, 2)
        harness.executor.run_next()  # the next batch forms before the cancelled slot's callbacks run
        leaver.cancel()
        await run_callbacks()
        assert values(await running) == [0]
        assert harness.batcher.queued_images == 0
        await harness.batcher.drain()

    run_in_manual_time(test)


def test_a_deadline_answers_the_caller_and_drops_the_work_that_has_not_begun() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        await harness.submit(0)
        late, other = await harness.submit(1, timeout_s=0.01), await harness.submit(2)
        await pass_time(0.0099)
        assert not late.done()
        await pass_time(0.0002)
        with pytest.raises(ExpiredInQueue):
            await late
        assert harness.batcher.queued_images == 1
        await harness.run_all()
        assert values(await other) == [4]
        assert harness.model.batches == [[0], [2]]

    run_in_manual_time(test)


def test_a_deadline_passes_while_the_batch_runs() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        late = await harness.submit(1, timeout_s=0.01)
        await pass_time(0.01)
        with pytest.raises(DeadlineExceeded) as raised:
            await late
        assert type(raised.value) is DeadlineExceeded, "it was run, so it did not expire in the queue"
        await harness.run_all()
        assert harness.model.batches == [[1]]

    run_in_manual_time(test)


def test_an_answered_request_is_released_before_its_deadline() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        batch = images(1)
        reference = weakref.ref(batch)
        harness.batcher.reserve(1)
        waiting = asyncio.create_task(harness.batcher.infer(batch, timeout_s=3600))
        del batch
        await run_callbacks()
        await harness.run_next()
        assert values(await waiting) == [2]
        del waiting
        assert reference() is None

    run_in_manual_time(test)


def test_a_run_is_measured_in_timeouts_until_it_ends_and_images_that_wait_are_not() -> None:
    async def test() -> None:
        clock = ManualClock()
        harness = BatcherHarness(instances=2, clock=clock)
        assert harness.batcher.elapsed_timeouts(2.0) == 0
        await harness.submit(1)
        clock.now_s += 5
        for value in range(8):
            await harness.submit(value)
        assert harness.batcher.elapsed_timeouts(2.0) == 2.5
        await harness.run_next()
        assert harness.batcher.running_batches == 2
        assert harness.batcher.elapsed_timeouts(2.0) == 0
        clock.now_s += 1
        assert harness.batcher.elapsed_timeouts(2.0) == 0.5
        await harness.run_all()
        assert harness.batcher.elapsed_timeouts(2.0) == harness.batcher.running_batches == 0

    run_in_manual_time(test)


@pytest.mark.parametrize(("images_of_batch", "timeouts"), [(1, 3.0), (2, 1.5), (4, 0.75)])
def test_a_large_batch_has_twice_its_expected_time_before_it_counts_as_one_timeout(
    images_of_batch: int, timeouts: float
) -> None:
    """Each image takes 1 s as measured, and the timeout is 2 s."""

    async def test() -> None:
        clock = ManualClock()
        harness = BatcherHarness(clock=clock, run_s_by_size={1: 1.0, 4: 4.0})
        await harness.submit(*range(images_of_batch))
        clock.now_s += 6
        assert harness.batcher.elapsed_timeouts(2.0) == timeouts
        await harness.run_all()

    run_in_manual_time(test)


def test_drain_answers_what_is_queued_or_reserved_and_refuses_the_rest() -> None:
    async def test() -> None:
        harness = BatcherHarness()
        harness.batcher.reserve(1)  # an image that is still being decoded
        running, waiting = await harness.submit(0), await harness.submit(1)
        draining = asyncio.ensure_future(harness.batcher.drain())
        await run_callbacks()
        with pytest.raises(Draining):
            harness.enqueue(9)
        await harness.run_all()
        assert not draining.done()
        decoded = asyncio.create_task(harness.batcher.infer(images(2)))
        await run_callbacks()
        await harness.run_all()
        await draining
        assert [values(await task) for task in (running, waiting, decoded)] == [[0], [2], [4]]

    run_in_manual_time(test)


def test_drain_waits_until_the_last_reserved_slot_is_released() -> None:
    async def test() -> None:
        batcher = BatcherHarness().batcher
        batcher.reserve(3)
        draining = asyncio.ensure_future(batcher.drain())
        await run_callbacks()
        batcher.release(2)
        await run_callbacks()
        assert not draining.done()
        batcher.release(1)
        await run_callbacks()
        assert draining.done()

    run_in_manual_time(test)


def test_drain_of_an_idle_batcher_ends_at_once_and_rejects_later_requests() -> None:
    async def test() -> None:
        batcher = BatcherHarness().batcher
        draining = asyncio.ensure_future(batcher.drain())
        await run_callbacks()
        assert draining.done()
        with pytest.raises(Draining):
            batcher.reserve(1)

    run_in_manual_time(test)


def test_a_delay_fills_the_batch_and_a_full_batch_does_not_wait() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_batch_size=3, max_delay_ms=10_000)
        await harness.submit(1)
        await harness.submit(2)
        assert harness.executor.pending == 0
        await harness.submit(3)
        assert harness.executor.pending == 1
        await harness.run_next()
        assert harness.model.batches == [[1, 2, 3]]

    run_in_manual_time(test)


def test_a_delay_ends_by_itself() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_delay_ms=5)
        task = await harness.submit(1)
        await pass_time(0.0049)
        assert harness.executor.pending == 0
        await pass_time(0.0002)
        await harness.run_next()
        assert values(await task) == [2]

    run_in_manual_time(test)


def test_instances_run_side_by_side() -> None:
    async def test() -> None:
        harness = BatcherHarness(instances=2)
        tasks = [await harness.submit(value) for value in range(4)]
        assert harness.executor.pending == 2
        await harness.run_all()
        assert [values(await task) for task in tasks] == [[0], [2], [4], [6]]

    run_in_manual_time(test)


def test_batches_are_reported_with_size_and_seconds() -> None:
    async def test() -> None:
        reports: list[tuple[int, float]] = []
        harness = BatcherHarness(on_batch=lambda outputs, seconds: reports.append((len(outputs), seconds)))
        await harness.submit(1, 2, 3)
        await harness.run_all()
        assert [size for size, _ in reports] == [3]
        assert reports[0][1] > 0

    run_in_manual_time(test)


@settings(max_examples=200, deadline=None)
@given(
    requests=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["keep", "cancel", "expire"])), max_size=25),
    releases=st.lists(st.integers(0, 3), max_size=25),
    max_batch_size=st.integers(1, 6),
    instances=st.integers(1, 3),
)
def test_every_kept_request_gets_exactly_its_own_rows(
    requests: list[tuple[int, str]], releases: list[int], max_batch_size: int, instances: int
) -> None:
    async def test() -> None:
        harness = BatcherHarness(max_batch_size=max_batch_size, max_queue_images=1000, instances=instances)
        kept: list[tuple[list[float], asyncio.Task[InferenceResult]]] = []
        next_value = 0
        for number, (size, outcome) in enumerate(requests):
            expected = [float(next_value + i) for i in range(size)]
            next_value += size
            task = await harness.submit(*expected, timeout_s=0 if outcome == "expire" else None)
            if outcome == "cancel":
                task.cancel()
            if outcome == "keep":
                kept.append((expected, task))
            else:
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
            for _ in range(min(releases[number] if number < len(releases) else 0, harness.executor.pending)):
                await harness.run_next(newest=number % 2 == 1)  # with several instances, in any order
        await harness.run_all()
        for expected, task in kept:
            assert values(await task) == [2 * value for value in expected]
        assert all(len(batch) <= max_batch_size for batch in harness.model.batches)
        assert harness.batcher.queued_images == 0
        await harness.batcher.drain()

    run_in_manual_time(test)
