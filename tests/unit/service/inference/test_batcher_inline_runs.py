"""The batcher runs short batches on the event loop's thread without blocking it for long."""

import asyncio
from typing import Any

import numpy as np

from service.errors import ModelFailed
from service.inference.batch import InvalidRows
from service.inference.run_timeout import RunTimedOut
from tests.unit.service.batching import (
    BatcherHarness,
    ManualClock,
    TimedModel,
    run_callbacks,
    run_in_manual_time,
    values,
)
from tests.unit.service.fakes import RecordingModel

LONG_S = 3600.0  # every run counts as short, however slow the machine is


def test_a_short_batch_runs_on_the_event_loop() -> None:
    async def test() -> None:
        inline_model = RecordingModel()
        harness = BatcherHarness(run_inline=inline_model, max_inline_run_s=LONG_S)
        first = await harness.submit(1)
        assert inline_model.batches == [], "the speed is still unknown"
        await harness.run_next()
        tasks = [harness.enqueue(value) for value in (2, 3)]
        await run_callbacks()
        assert [values(await task) for task in [first, *tasks]] == [[2], [4], [6]]
        assert (harness.model.batches, inline_model.batches) == ([[1]], [[2, 3]])
        assert harness.batcher.running_batches == 0

    run_in_manual_time(test)


def test_only_a_long_batch_runs_on_the_executor() -> None:
    """An image takes 10 ms, and batches that take 25 ms or longer must run on the executor."""

    async def test() -> None:
        clock = ManualClock()
        inline_model = TimedModel(clock)
        harness = BatcherHarness(
            model=TimedModel(clock),
            run_inline=inline_model,
            max_inline_run_s=0.025,
            run_s_by_size={1: 0.01, 4: 0.04},
            clock=clock,
        )
        tasks = [await harness.submit(1, 2)]
        tasks.append(await harness.submit(3, 4, 5))
        await harness.run_next()
        assert [values(await task) for task in tasks] == [[2, 4], [6, 8, 10]]
        assert (inline_model.batches, harness.model.batches) == ([[1, 2]], [[3, 4, 5]])

    run_in_manual_time(test)


def test_after_an_inline_timeout_all_batches_run_on_the_executor() -> None:
    async def test() -> None:
        batches: list[Any] = []

        def time_out(batch: Any) -> Any:
            batches.append(batch)
            raise RunTimedOut

        harness = BatcherHarness(run_inline=time_out, max_inline_run_s=LONG_S)
        tasks = [await harness.submit(1)]
        await harness.run_next()
        for value in (2, 3):
            tasks.append(await harness.submit(value))
            await harness.run_next()
        assert [values(await task) for task in tasks] == [[2], [4], [6]]
        assert len(batches) == 1

    run_in_manual_time(test)


def test_an_inline_failure_affects_only_its_image() -> None:
    async def test() -> None:
        inline_model = RecordingModel(poison=3)
        harness = BatcherHarness(run_inline=inline_model, max_inline_run_s=LONG_S)
        first = await harness.submit(1)
        await harness.run_next()
        two, three = [harness.enqueue(value) for value in (2, 3)]
        await run_callbacks()
        later = await harness.submit(4)
        assert [values(await task) for task in (first, two, later)] == [[2], [4], [8]]
        assert [str(error) for error in (await three).errors.values()] == ["poisoned"]
        assert inline_model.batches == [[2, 3], [2], [3], [4]]

    run_in_manual_time(test)


def test_a_non_finite_row_of_an_inline_run_fails_only_its_image() -> None:
    async def test() -> None:
        def reject(images: Any) -> Any:
            raise InvalidRows(np.where(images == 3, np.nan, 2 * images))

        harness = BatcherHarness(run_inline=reject, max_inline_run_s=LONG_S)
        first = await harness.submit(1)
        await harness.run_next()
        result = await harness.enqueue(3, 4)
        assert (values(await first), values(result)) == ([2], [8])
        assert {row: type(error) for row, error in result.errors.items()} == {0: ModelFailed}

    run_in_manual_time(test)


def test_other_tasks_run_between_inline_batches() -> None:
    async def test() -> None:
        inline_model = RecordingModel()
        harness = BatcherHarness(run_inline=inline_model, max_inline_run_s=LONG_S, max_batch_size=1)
        first = await harness.submit(0)
        await harness.run_next()
        tasks = [harness.enqueue(value) for value in range(20)]
        turns = 0
        while not tasks[-1].done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= len(tasks), "other tasks run after every batch"
        assert values(await first) == [0]
        assert len(inline_model.batches) == len(tasks)

    run_in_manual_time(test)
