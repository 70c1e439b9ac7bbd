"""Distribution of a batch's outputs and errors to its requests."""

import asyncio

import numpy as np
import pytest

from service.inference.batch import Batch, BatchSlice, QueuedRequest
from tests.unit.service.batching import BatcherHarness, ManualClock, TimedModel, images, run_in_manual_time, values


def request(count: int) -> QueuedRequest:
    return QueuedRequest(images(*range(count)), asyncio.get_running_loop().create_future(), 0.0)


def test_the_error_of_an_image_belongs_to_its_own_request_alone() -> None:
    async def test() -> None:
        first, second = request(1), request(2)
        batch = Batch([BatchSlice(first, first.images), BatchSlice(second, second.images)], 0.0, 0.0)
        error = RuntimeError("broken")
        batch.complete(images(10, 11, 12), 0.5, {0: error})
        assert (first.future.result().errors, values(first.future.result())) == ({0: error}, [])
        assert (second.future.result().errors, values(second.future.result())) == ({}, [11, 12])

    run_in_manual_time(test)


def test_a_failed_part_of_a_request_has_an_error_for_each_of_its_images() -> None:
    """Each image gets its own error object, and all have the same cause."""

    async def test() -> None:
        large = request(5)
        large.outputs.append((0, images(10, 11)))
        large.complete(2, 2, 0.25)
        error = RuntimeError("broken")
        error.__cause__ = cause = ValueError("why")
        Batch([BatchSlice(large, large.images[2:], 2)], 0.0, 0.0).fail_images(error, 0.5)
        result = large.future.result()
        assert values(result) == [10, 11]
        assert sorted(result.errors) == [2, 3, 4]
        assert len({id(one) for one in result.errors.values()}) == 3
        assert {one.__cause__ for one in result.errors.values()} == {cause}
        assert (result.batch_size, result.compute_s) == (3, 0.75)

    run_in_manual_time(test)


def test_a_request_whose_images_have_all_failed_has_no_rows() -> None:
    async def test() -> None:
        single = request(1)
        Batch([BatchSlice(single, single.images)], 0.0, 0.0).fail_images(RuntimeError("broken"), 0.5)
        assert single.future.result().outputs.dtype == np.float32
        assert len(single.future.result().outputs) == 0

    run_in_manual_time(test)


def test_a_result_contains_how_long_its_images_waited_and_ran() -> None:
    """A run takes 10 ms per image. Six images wait for one image of another request, and run as four and two."""

    async def test() -> None:
        clock = ManualClock()
        harness = BatcherHarness(model=TimedModel(clock), clock=clock)
        other, large = await harness.submit(0), await harness.submit(*range(6))
        await harness.run_all()
        await other
        result = await large
        assert (result.queue_s, result.compute_s) == (pytest.approx(0.01), pytest.approx(0.06))
        assert result.batch_size == 2

    run_in_manual_time(test)
