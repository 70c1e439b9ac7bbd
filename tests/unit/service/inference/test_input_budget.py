"""The memory for decoded images is limited over all models, and released exactly once."""

import asyncio
from typing import Any

import numpy as np
import pytest

from service.errors import QueueFull, TooManyImages
from service.inference.batch import Images, InferenceResult
from service.inference.input_budget import InputBudget
from tests.unit.service.batching import BatcherHarness, images, run_callbacks, run_in_manual_time, values

LIMIT_BYTES = 100


def harness(budget: InputBudget, input_bytes: int = 10, **options: Any) -> BatcherHarness:
    return BatcherHarness(input_bytes=input_bytes, input_budget=budget, **options)


def test_images_fit_up_to_the_limit() -> None:
    budget = InputBudget(LIMIT_BYTES)
    budget.check(10, 10)
    budget.used_bytes = 91
    with pytest.raises(QueueFull):
        budget.check(1, 10)
    with pytest.raises(QueueFull):
        budget.check_rest(10)
    budget.check(1, 9)
    budget.check_rest(9)


def test_a_request_that_never_fits_is_rejected_with_the_number_of_images_that_fit() -> None:
    budget = InputBudget(LIMIT_BYTES)
    with pytest.raises(TooManyImages, match="11 images of 10 bytes each as the model's input; at most 10 fit"):
        budget.check(11, 10)
    with pytest.raises(TooManyImages, match="at most 1 fit"):
        budget.check(2, LIMIT_BYTES + 1)


def test_an_image_larger_than_the_memory_is_accepted_alone() -> None:
    budget = InputBudget(LIMIT_BYTES)
    budget.check(1, LIMIT_BYTES + 1)
    budget.check_rest(LIMIT_BYTES + 1)
    budget.used_bytes = 1
    for reject in (lambda: budget.check(1, LIMIT_BYTES + 1), lambda: budget.check_rest(LIMIT_BYTES + 1)):
        with pytest.raises(QueueFull):
            reject()


def test_the_queues_of_all_models_share_the_memory() -> None:
    async def test() -> None:
        budget = InputBudget(LIMIT_BYTES)
        first, second = harness(budget), harness(budget, input_bytes=20)
        running = await first.submit(1, 2, 3, 4, 5)
        assert budget.used_bytes == 50
        for reject in (second.batcher.reserve, second.batcher.check_capacity):
            second.batcher.reserve(2)
            with pytest.raises(QueueFull):
                reject(1)
            second.batcher.release(2)
        second.batcher.check_capacity(9)  # a rough count: `reserve` decides
        await first.run_all()
        assert values(await running) == [2, 4, 6, 8, 10]
        assert budget.used_bytes == 0

    run_in_manual_time(test)


def test_a_request_holds_its_memory_until_its_last_batch_is_done() -> None:
    """The images are views of one array, so they are freed together."""

    async def test() -> None:
        budget = InputBudget(LIMIT_BYTES)
        one = harness(budget)
        large = await one.submit(1, 2, 3, 4, 5)
        await one.run_next()
        assert (one.batcher.queued_images, budget.used_bytes) == (0, 50)
        await one.run_next()
        assert (large.done(), budget.used_bytes) == (True, 0)

    run_in_manual_time(test)


def test_a_request_rejected_by_the_queue_reserves_no_memory() -> None:
    budget = InputBudget(LIMIT_BYTES)
    with pytest.raises(TooManyImages, match="the queue holds at most 5"):
        harness(budget, max_queue_images=5).batcher.reserve(6)
    assert budget.used_bytes == 0


@pytest.mark.parametrize("end", ["cancelled in the queue", "cancelled at work", "failed", "late"])
def test_memory_is_freed_however_a_request_ends(end: str) -> None:
    async def test() -> None:
        budget = InputBudget(LIMIT_BYTES)
        one = harness(budget, poison=7)
        first = await one.submit(1)
        task = await one.submit(7, timeout_s=0.5) if end == "late" else await one.submit(7)
        assert budget.used_bytes == 20
        if end == "late":
            asyncio.get_running_loop().now_s += 1  # type: ignore[attr-defined]
        if end == "cancelled at work":
            await one.run_next()
        if end.startswith("cancelled"):
            task.cancel()
        await run_callbacks()
        await one.run_all()
        await asyncio.gather(first, task, return_exceptions=True)
        assert budget.used_bytes == 0

    run_in_manual_time(test)


def test_the_largest_request_follows_from_the_slots_and_the_memory() -> None:
    budget = InputBudget(LIMIT_BYTES)
    cases = [(10, 100, 10), (10, 3, 3), (0, 100, 100)]
    largest = [harness(budget, size, max_queue_images=slots).batcher.max_request_images for size, slots, _ in cases]
    assert largest == [most for _, _, most in cases]


def test_large_images_are_joined_when_they_run_and_not_before() -> None:
    """1,024 images of 512 x 512 pixels in one request stopped the event loop for seconds, and took twice the memory."""

    async def test() -> None:
        joined: list[Any] = []

        def model(batch: Any) -> Any:
            joined.append(batch)
            return batch * 2

        one = BatcherHarness(model=model)
        listed: Images = [np.array([value], np.float32) for value in (1, 2, 3, 4, 5)]
        one.batcher.reserve(7)
        task: asyncio.Task[InferenceResult] = asyncio.create_task(one.batcher.infer(listed))
        other = asyncio.create_task(one.batcher.infer(images(8, 9)))
        await run_callbacks()
        assert not joined  # only the executor joins them
        await one.run_all()
        assert [batch[:, 0].tolist() for batch in joined] == [[1, 2, 3, 4], [5, 8, 9]]
        assert (values(await task), values(await other)) == ([2, 4, 6, 8, 10], [16, 18])

    run_in_manual_time(test)
