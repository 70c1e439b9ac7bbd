"""The batcher: who shares a batch, who is dropped, who is refused, and that nobody ever waits for ever."""

import asyncio
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DeadlineExceeded, Draining, ModelFailed, Overloaded, TooManyImages
from service.inference.admission import UNMEASURED_RETRY_S
from service.inference.batch import BatchResult
from service.inference.batcher import BACKGROUND_FIRST_EVERY, DEEP, Batcher
from tests.unit.service.batching import Bench, images, run, turn, values
from tests.unit.service.fakes import HeldExecutor


def test_one_cancelled_among_four_leaves_the_others_answered() -> None:
    async def test() -> None:
        bench = Bench()
        first = await bench.submit(0)
        four = [await bench.submit(value) for value in (1, 2, 3, 4)]
        four[1].cancel()
        await bench.release_all()
        assert values(await first) == [0]
        assert [values(await slot) for slot in four if not slot.cancelled()] == [[2], [6], [8]]
        assert bench.model.batches == [[0], [1, 3, 4]]

    run(test)


def test_cancelled_while_its_batch_runs_hurts_nobody_else() -> None:
    async def test() -> None:
        bench = Bench(max_delay_ms=1)
        one, two = bench.ask(1), bench.ask(2)
        await asyncio.sleep(0.01)
        one.cancel()
        await bench.release()
        assert values(await two) == [4]
        assert bench.model.batches == [[1, 2]]

    run(test)


def test_what_arrives_in_one_turn_of_the_loop_shares_a_batch() -> None:
    async def test() -> None:
        bench = Bench()
        slots = [bench.ask(value) for value in range(3)]
        await turn()
        await bench.release()
        assert [(await slot).batch_size for slot in slots] == [3, 3, 3]

    run(test)


def test_what_arrives_while_a_batch_runs_forms_the_next_up_to_the_limit() -> None:
    async def test() -> None:
        bench = Bench(max_batch_size=4)
        slots = [await bench.submit(value) for value in range(7)]
        await bench.release_all()
        assert bench.model.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert [values(await slot) for slot in slots] == [[2 * value] for value in range(7)]

    run(test)


def test_a_deep_queue_is_worked_off_in_larger_batches() -> None:
    async def test() -> None:
        bench = Bench(normal_batch_size=2)
        slots = [await bench.submit(value) for value in range(1 + DEEP * 4 + 1)]
        await bench.release_all()
        assert [len(batch) for batch in bench.model.batches] == [1, 4, *[2] * 6, 1]
        assert [values(await slot) for slot in slots] == [[2 * value] for value in range(len(slots))]

    run(test)


def test_a_large_request_is_split_over_batches_and_rejoined_in_order() -> None:
    async def test() -> None:
        bench = Bench(max_batch_size=4)
        small, large, last = await bench.submit(0), await bench.submit(*range(1, 11)), await bench.submit(99)
        await bench.release_all()
        assert bench.model.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 99]]
        assert values(await small) == [0]
        assert values(await large) == [2 * value for value in range(1, 11)]
        assert values(await last) == [198]

    run(test)


def test_an_error_reaches_every_member_of_its_batch_and_only_those() -> None:
    async def test() -> None:
        bench = Bench(poison=2)
        before, *together = [await bench.submit(value) for value in (0, 1, 2, 3)]
        await bench.release()
        after = await bench.submit(5)
        await bench.release_all()
        assert values(await before) == [0]
        for slot in together:
            with pytest.raises(RuntimeError, match="poisoned"):
                await slot
        assert values(await after) == [10]

    run(test)


def test_a_split_request_fails_once_when_one_of_its_batches_fails() -> None:
    async def test() -> None:
        bench = Bench(poison=2, max_batch_size=2)
        large, other = await bench.submit(1, 2, 3, 4, 5, 6), await bench.submit(7)
        await bench.release_all()
        with pytest.raises(RuntimeError, match="poisoned"):
            await large
        assert values(await other) == [14]
        assert [5, 6] not in bench.model.batches  # the rest of a failed request is not computed
        assert bench.batcher.queued_images == 0

    run(test)


def test_a_model_that_answers_with_too_few_rows_fails_its_batch() -> None:
    async def test() -> None:
        executor = HeldExecutor()
        batcher = Batcher(lambda batch: batch[:-1], executor, max_batch_size=4, max_queue_images=8)
        batcher.reserve(2)
        slot = asyncio.create_task(batcher.answer(images(1, 2)))
        await turn()
        executor.release()
        with pytest.raises(ModelFailed, match="1 answers to 2 images"):
            await slot

    run(test)


def test_past_the_bound_requests_are_refused_and_places_come_back() -> None:
    async def test() -> None:
        bench = Bench(max_queue_images=5)
        running = await bench.submit(0)
        waiting = await bench.submit(1, 2, 3, 4)
        with pytest.raises(Overloaded) as refused:
            bench.ask(5, 6)
        assert refused.value.retry_after_s == UNMEASURED_RETRY_S
        await bench.release_all()
        again = await bench.submit(5, 6)
        await bench.release_all()
        assert [len((await slot).outputs) for slot in (running, waiting, again)] == [1, 4, 2]

    run(test)


def test_a_request_that_could_never_wait_is_told_so() -> None:
    async def test() -> None:
        with pytest.raises(TooManyImages, match="6 images; at most 5"):
            Bench(max_queue_images=5).ask(*range(6))

    run(test)


def test_an_empty_request_is_a_programming_error() -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match="at least one image"):
            await Bench().ask()

    run(test)


def test_cancelling_gives_the_places_back_at_once() -> None:
    async def test() -> None:
        bench = Bench(max_queue_images=4)
        await bench.submit(0)
        waiting = await bench.submit(1, 2, 3, 4)
        waiting.cancel()
        await turn()
        assert bench.batcher.queued_images == 0
        again = await bench.submit(5, 6, 7, 8)
        await bench.release_all()
        assert values(await again) == [10, 12, 14, 16]
        assert bench.model.batches == [[0], [5, 6, 7, 8]]

    run(test)


def test_cancelled_in_the_very_turn_in_which_the_batch_forms() -> None:
    async def test() -> None:
        bench = Bench()
        running, leaver = await bench.submit(0), await bench.submit(1, 2)
        bench.executor.release()  # the next batch forms before the cancelled slot's callbacks run
        leaver.cancel()
        await turn()
        assert values(await running) == [0]
        assert bench.batcher.queued_images == 0
        await bench.batcher.drain()

    run(test)


def test_a_deadline_answers_the_caller_and_drops_the_work_that_has_not_begun() -> None:
    async def test() -> None:
        bench = Bench()
        await bench.submit(0)
        late, other = await bench.submit(1, timeout_s=0.01), await bench.submit(2)
        with pytest.raises(DeadlineExceeded):
            await late
        await bench.release_all()
        assert values(await other) == [4]
        assert bench.model.batches == [[0], [2]]

    run(test)


def test_a_deadline_passes_while_the_batch_runs() -> None:
    async def test() -> None:
        bench = Bench()
        late = await bench.submit(1, timeout_s=0.01)
        with pytest.raises(DeadlineExceeded):
            await late
        await bench.release_all()
        assert bench.model.batches == [[1]]

    run(test)


def test_what_is_answered_is_held_no_longer_though_its_deadline_is_far() -> None:
    async def test() -> None:
        bench = Bench()
        given = images(1)
        held = weakref.ref(given)
        bench.batcher.reserve(1)
        waiting = asyncio.create_task(bench.batcher.answer(given, timeout_s=3600))
        del given
        await turn()
        await bench.release()
        assert values(await waiting) == [2]
        del waiting
        assert held() is None

    run(test)


def test_a_run_that_takes_long_is_seen_until_it_ends() -> None:
    async def test() -> None:
        bench = Bench(instances=2)
        assert bench.batcher.longest_run_s() == 0
        await bench.submit(1)
        await asyncio.sleep(0.02)
        await bench.submit(2)
        assert bench.batcher.longest_run_s() >= 0.02
        await bench.release()
        assert bench.batcher.running == 1
        await bench.release()
        assert bench.batcher.longest_run_s() == bench.batcher.running == 0

    run(test)


def test_drain_answers_what_is_queued_or_reserved_and_refuses_the_rest() -> None:
    async def test() -> None:
        bench = Bench()
        bench.batcher.reserve(1)  # an image that is still being decoded
        running, waiting = await bench.submit(0), await bench.submit(1)
        draining = asyncio.ensure_future(bench.batcher.drain())
        await turn()
        with pytest.raises(Draining):
            bench.ask(9)
        await bench.release_all()
        assert not draining.done()
        decoded = asyncio.create_task(bench.batcher.answer(images(2)))
        await turn()
        await bench.release_all()
        await draining
        assert [values(await slot) for slot in (running, waiting, decoded)] == [[0], [2], [4]]

    run(test)


def test_drain_of_an_idle_batcher_and_of_released_places_ends_at_once() -> None:
    async def test() -> None:
        bench = Bench()
        bench.batcher.reserve(3)
        bench.batcher.release(3)
        await bench.batcher.drain()

    run(test)


def test_a_delay_fills_the_batch_and_a_full_batch_does_not_wait() -> None:
    async def test() -> None:
        bench = Bench(max_batch_size=3, max_delay_ms=10_000)
        await bench.submit(1)
        await bench.submit(2)
        assert bench.executor.held == 0
        await bench.submit(3)
        assert bench.executor.held == 1
        await bench.release()
        assert bench.model.batches == [[1, 2, 3]]

    run(test)


def test_a_delay_ends_by_itself() -> None:
    async def test() -> None:
        bench = Bench(max_delay_ms=5)
        slot = await bench.submit(1)
        await asyncio.sleep(0.02)
        await bench.release()
        assert values(await slot) == [2]

    run(test)


def test_the_background_takes_the_room_that_is_left() -> None:
    async def test() -> None:
        bench = Bench(max_batch_size=3)
        running = await bench.submit(0)
        late = [await bench.submit(value, background=True) for value in (10, 11)]
        soon = [await bench.submit(value) for value in (1, 2, 3, 4)]
        await bench.release_all()
        assert bench.model.batches == [[0], [1, 2, 3], [4, 10, 11]]
        assert [values(await slot) for slot in (running, *soon, *late)] == [[0], [2], [4], [6], [8], [20], [22]]

    run(test)


def test_the_background_does_not_starve() -> None:
    async def test() -> None:
        bench = Bench(max_batch_size=1, max_queue_images=1000)
        await bench.submit(0)
        late = await bench.submit(-1, background=True)
        for value in range(1, 40):
            await bench.submit(value)
        for _ in range(BACKGROUND_FIRST_EVERY):
            await bench.release()
        assert values(await late) == [-2]
        await bench.release_all()

    run(test)


def test_instances_run_side_by_side() -> None:
    async def test() -> None:
        bench = Bench(instances=2)
        slots = [await bench.submit(value) for value in range(4)]
        assert bench.executor.held == 2
        await bench.release_all()
        assert [values(await slot) for slot in slots] == [[0], [2], [4], [6]]

    run(test)


def test_batches_are_reported_with_size_and_seconds() -> None:
    async def test() -> None:
        heard: list[tuple[int, float]] = []
        bench = Bench(on_batch=lambda outputs, seconds: heard.append((len(outputs), seconds)))
        await bench.submit(1, 2, 3)
        await bench.release_all()
        assert [size for size, _ in heard] == [3]
        assert heard[0][1] > 0

    run(test)


def test_what_would_be_late_is_refused_at_once_and_the_background_counts_only_for_itself() -> None:
    async def test() -> None:
        bench = Bench()
        bench.batcher.reserve(1, timeout_s=1e-9)  # before the first batch nothing is known: it is let in
        bench.batcher.release(1)
        first = await bench.submit(0)
        await bench.release()
        await first
        running = await bench.submit(1)
        waiting = await bench.submit(*range(50), background=True)
        bench.batcher.reserve(1, timeout_s=1e-9)  # goes before all of these
        bench.batcher.release(1)
        with pytest.raises(Overloaded, match="longer than the request may") as raised:
            bench.batcher.reserve(1, timeout_s=1e-9, background=True)
        assert raised.value.retry_after_s > 0
        bench.batcher.reserve(1, timeout_s=60, background=True)
        bench.batcher.release(1)
        await bench.submit(*range(50))
        with pytest.raises(Overloaded):
            bench.batcher.reserve(1, timeout_s=1e-9)
        await bench.release_all()
        await asyncio.gather(running, waiting)
        bench.batcher.reserve(1, timeout_s=1e-9, background=True)  # nobody waits any more

    run(test)


def test_a_full_queue_is_seen_before_anything_is_reserved() -> None:
    async def test() -> None:
        bench = Bench(max_queue_images=2)
        bench.batcher.check_capacity()
        bench.batcher.reserve(2)
        with pytest.raises(Overloaded):
            bench.batcher.check_capacity()
        bench.batcher.release(1)
        bench.batcher.check_capacity()

    run(test)


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
        bench = Bench(max_batch_size=max_batch_size, max_queue_images=1000, instances=instances)
        kept: list[tuple[list[float], asyncio.Task[BatchResult]]] = []
        next_value = 0
        for number, (size, fate) in enumerate(requests):
            wanted = [float(next_value + i) for i in range(size)]
            next_value += size
            slot = await bench.submit(*wanted, timeout_s=0 if fate == "expire" else None)
            if fate == "cancel":
                slot.cancel()
            if fate == "keep":
                kept.append((wanted, slot))
            else:
                slot.add_done_callback(lambda done: done.cancelled() or done.exception())
            for _ in range(min(releases[number] if number < len(releases) else 0, bench.executor.held)):
                await bench.release()
        await bench.release_all()
        for wanted, slot in kept:
            assert values(await slot) == [2 * value for value in wanted]
        assert all(len(batch) <= max_batch_size for batch in bench.model.batches)
        assert bench.batcher.queued_images == 0
        await bench.batcher.drain()

    run(test)
