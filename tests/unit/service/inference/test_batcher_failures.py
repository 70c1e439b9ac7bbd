"""Failed runs: only the images that cause the failure get an error; finding them takes at most one run per image."""

import asyncio
from typing import Any

import numpy as np
import pytest

from service.errors import ModelFailed, OutOfMemory, TooLateToStart
from service.inference.batch import BatchSlice, InferenceResult, InvalidRows
from tests.unit.service.batching import (
    BatcherHarness,
    ManualClock,
    TimedModel,
    run_callbacks,
    run_in_manual_time,
    values,
)
from tests.unit.service.fakes import RecordingModel


def errors(result: InferenceResult) -> dict[int, str]:
    return {number: str(error) for number, error in result.errors.items()}


def test_only_the_image_on_which_the_model_raises_fails() -> None:
    async def test() -> None:
        harness = BatcherHarness(poison=2)
        before, *together = [await harness.submit(value) for value in (0, 1, 2, 3)]
        await harness.run_next()
        after = await harness.submit(5)
        await harness.run_all()
        one, poisoned, three = [await task for task in together]
        assert [values(result) for result in (await before, one, three, await after)] == [[0], [2], [6], [10]]
        assert (len(poisoned.outputs), errors(poisoned)) == (0, {0: "poisoned"})
        assert harness.model.batches == [[0], [1, 2, 3], [1], [2], [3], [5]]
        assert (one.errors, three.errors) == ({}, {})
        await harness.batcher.drain()

    run_in_manual_time(test)


def test_a_request_with_an_image_that_fails_has_the_rows_of_its_others() -> None:
    async def test() -> None:
        harness = BatcherHarness(poison=4, max_batch_size=2)
        large, other = await harness.submit(1, 2, 3, 4, 5), await harness.submit(7)
        await harness.run_all()
        result = await large
        assert (values(result), errors(result)) == ([2, 4, 6, 10], {3: "poisoned"})
        assert values(await other) == [14]
        assert harness.model.batches == [[1, 2], [3, 4], [3], [4], [5, 7]]
        assert harness.batcher.queued_images == 0

    run_in_manual_time(test)


def test_after_a_failed_batch_each_image_runs_once_more() -> None:
    """Every image has its own error object, because one raised in several places would collect their tracebacks."""

    class BrokenModel(RecordingModel):
        def __call__(self, images: Any) -> Any:
            super().__call__(images)
            raise RuntimeError("broken")

    async def test() -> None:
        harness = BatcherHarness(model=BrokenModel())
        single, pair = harness.enqueue(1), harness.enqueue(2, 3)
        await run_callbacks()
        await harness.run_all()
        assert harness.model.batches == [[1, 2, 3], [1], [2], [3]]
        assert (errors(await single), errors(await pair)) == ({0: "broken"}, {0: "broken", 1: "broken"})
        raised = [*(await single).errors.values(), *(await pair).errors.values()]
        assert len({id(error) for error in raised}) == 3

    run_in_manual_time(test)


@pytest.mark.parametrize("error", [OutOfMemory("No memory."), MemoryError()], ids=repr)
def test_a_run_without_memory_is_not_repeated(error: Exception) -> None:
    class HungryModel(RecordingModel):
        def __call__(self, images: Any) -> Any:
            super().__call__(images)
            raise error

    async def test() -> None:
        harness = BatcherHarness(model=HungryModel())
        tasks = [harness.enqueue(1), harness.enqueue(2)]
        await run_callbacks()
        tasks.append(await harness.submit(3))
        await harness.run_all()
        raised = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in raised] == [type(error)] * 3
        assert len({id(one) for one in raised}) == 3
        assert harness.model.batches == [[1, 2], [3]]

    run_in_manual_time(test)


def test_an_image_of_a_failed_batch_is_not_run_when_its_request_has_no_time_left_or_is_gone() -> None:
    """A run of one image takes 10 ms; the batch of four fails 5 ms before the deadline of the second request."""

    async def test() -> None:
        clock = ManualClock()
        model = TimedModel(clock, poison=4)
        harness = BatcherHarness(model=model, clock=clock, run_s_by_size={1: 0.01, 4: 0.04})
        tasks = [harness.enqueue(1), harness.enqueue(2, timeout_s=5.0), harness.enqueue(3), harness.enqueue(4)]
        await run_callbacks()
        clock.now_s += 4.955
        await harness.run_next()  # the batch takes 40 ms
        tasks[2].cancel()
        await harness.run_all()
        assert model.batches == [[1, 2, 3, 4], [1], [4]]
        assert values(await tasks[0]) == [2]
        with pytest.raises(RuntimeError, match="poisoned"):
            await tasks[1]
        assert errors(await tasks[3]) == {0: "poisoned"}
        await harness.batcher.drain()

    run_in_manual_time(test)


def test_images_that_run_alone_delay_new_requests_and_are_drained() -> None:
    async def test() -> None:
        clock = ManualClock()
        model = TimedModel(clock, poison=4)
        harness = BatcherHarness(model=model, clock=clock, run_s_by_size={1: 0.01, 4: 0.04})
        tasks = [harness.enqueue(value) for value in (1, 2, 3, 4)]
        await run_callbacks()
        await harness.run_next()  # now the first of four runs alone
        with pytest.raises(TooLateToStart):
            harness.batcher.reserve(1, timeout_s=0.054)
        harness.batcher.reserve(1, timeout_s=0.056)  # 5 runs of 10 ms, and a tenth for safety
        harness.batcher.release(1)
        draining = asyncio.ensure_future(harness.batcher.drain())
        await harness.run_next()
        await harness.run_next()
        await harness.run_next()
        assert not draining.done()
        await harness.run_next()
        await draining
        assert [bool((await task).errors) for task in tasks] == [False, False, False, True]

    run_in_manual_time(test)


class NotFiniteModel(RecordingModel):
    """Doubles its images; 5 becomes not-a-number."""

    def __call__(self, images: Any) -> Any:
        outputs = np.where(images == 5, np.nan, super().__call__(images))
        if not np.isfinite(outputs).all():
            raise InvalidRows(outputs)
        return outputs


def test_a_row_that_is_not_finite_fails_only_its_own_image_and_costs_no_further_run() -> None:
    async def test() -> None:
        reports: list[list[float]] = []
        harness = BatcherHarness(
            model=NotFiniteModel(), on_batch=lambda outputs, compute_s: reports.append(outputs[:, 0].tolist())
        )
        single, large = harness.enqueue(1), harness.enqueue(4, 5, 6)
        await run_callbacks()
        await harness.run_all()
        assert values(await single) == [2]
        result = await large
        assert values(result) == [8, 12]
        assert errors(result) == {1: "The model's output for the image is not finite."}
        assert isinstance(result.errors[1], ModelFailed)
        assert harness.model.batches == [[1, 4, 5, 6]]
        assert reports == [[2, 8, 12]]

    run_in_manual_time(test)


def test_a_request_without_a_finite_row_has_no_outputs() -> None:
    async def test() -> None:
        harness = BatcherHarness(model=NotFiniteModel())
        task = await harness.submit(5, 5)
        await harness.run_all()
        result = await task
        assert (len(result.outputs), sorted(result.errors)) == (0, [0, 1])

    run_in_manual_time(test)


def test_a_model_that_answers_with_too_few_rows_fails() -> None:
    async def test() -> None:
        harness = BatcherHarness(model=lambda batch: batch[:-1])
        task = await harness.submit(1, 2)
        await harness.run_all()
        assert errors(await task) == dict.fromkeys(range(2), "The model gave 0 answers to 1 images.")

    run_in_manual_time(test)


def test_the_rows_of_a_large_request_keep_their_order_when_a_later_part_is_done_first() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_batch_size=2, instances=2, poison=4)
        large = await harness.submit(1, 2, 3, 4, 5, 6)
        harness.executor.run_next(newest=True)
        await run_callbacks()
        await harness.run_all()
        result = await large
        assert (values(result), errors(result)) == ([2, 4, 6, 10, 12], {3: "poisoned"})

    run_in_manual_time(test)


def test_an_answer_is_given_though_counting_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        def fail(outputs: object, compute_s: float) -> None:
            raise RuntimeError("no metrics")

        harness = BatcherHarness(on_batch=fail)
        first, second = await harness.submit(1), await harness.submit(2)
        await harness.run_all()
        assert (values(await first), values(await second)) == ([2], [4])
        assert [(record.levelname, record.message) for record in caplog.records] == [
            ("ERROR", "a batch could not be counted")
        ] * 2
        assert "no metrics" in caplog.text

    run_in_manual_time(test)


def refuse_next(harness: BatcherHarness) -> None:
    """Makes the executor reject the next job."""
    submit = harness.executor.submit

    def refuse(*given: object) -> None:
        harness.executor.submit = submit  # type: ignore[method-assign]
        raise RuntimeError("cannot schedule new futures after shutdown")

    harness.executor.submit = refuse  # type: ignore[assignment,method-assign]
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


def test_an_answer_is_given_though_the_next_batch_cannot_be_started() -> None:
    """The batch that could not be started fails, and the model runs later requests."""

    async def test() -> None:
        harness = BatcherHarness()
        first, second = await harness.submit(1), await harness.submit(2)
        refuse_next(harness)
        await harness.run_next()
        assert values(await first) == [2]
        with pytest.raises(RuntimeError, match="cannot schedule"):
            await second
        third = await harness.submit(3)
        await harness.run_all()
        assert values(await third) == [6]
        assert harness.batcher.running_batches == 0

    run_in_manual_time(test)


def test_requests_behind_a_batch_that_cannot_be_started_are_run_without_another_request() -> None:
    async def test() -> None:
        harness = BatcherHarness(max_batch_size=1)
        first, second, third = [await harness.submit(value) for value in (1, 2, 3)]
        refuse_next(harness)
        await harness.run_next()
        await harness.run_all()
        assert (values(await first), values(await third)) == ([2], [6])
        with pytest.raises(RuntimeError, match="cannot schedule"):
            await second

    run_in_manual_time(test)


def test_requests_are_run_after_an_error_while_a_batch_forms() -> None:
    """The queue was not woken: requests without a timeout waited until the next request arrived, or forever."""

    async def test() -> None:
        harness = BatcherHarness(max_batch_size=1)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        first, second, third = [await harness.submit(value) for value in (1, 2, 3)]
        take, errors = harness.batcher._queue._take, [MemoryError("no memory")]

        def take_or_raise(*arguments: Any) -> BatchSlice:
            if errors:
                raise errors.pop()
            return take(*arguments)

        harness.batcher._queue._take = take_or_raise  # type: ignore[method-assign]
        await harness.run_next()
        await harness.run_all()
        assert (values(await first), values(await third)) == ([2], [6])
        with pytest.raises(MemoryError):
            await second

    run_in_manual_time(test)
