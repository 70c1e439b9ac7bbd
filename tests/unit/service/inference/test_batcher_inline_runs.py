"""The batcher, where a run is brief: on the event loop's own thread, which it may not hold up."""

import asyncio
from typing import Any

import pytest

from service.inference.run_timeout import RunTimedOut
from tests.unit.service.batching import Bench, run, turn, values
from tests.unit.service.fakes import RecordingModel

ANY_S = 3600.0  # every run is brief, however slow the machine


def test_a_batch_that_should_be_short_runs_on_the_loops_own_thread() -> None:
    async def test() -> None:
        here = RecordingModel()
        bench = Bench(run_inline=here, brief_s=ANY_S)
        first = await bench.submit(1)
        assert here.batches == [], "nothing is known of the speed yet"
        await bench.release()
        slots = [bench.ask(value) for value in (2, 3)]
        await turn()
        assert [values(await slot) for slot in [first, *slots]] == [[2], [4], [6]]
        assert (bench.model.batches, here.batches) == ([[1]], [[2, 3]])
        assert bench.batcher.running == 0

    run(test)


def test_a_batch_that_should_take_long_keeps_off_the_loop() -> None:
    async def test() -> None:
        here = RecordingModel()
        bench = Bench(run_inline=here, brief_s=1e-9)
        for value in (1, 2):
            slot = await bench.submit(value)
            await bench.release()
            assert values(await slot) == [2 * value]
        assert here.batches == []

    run(test)


def test_a_batch_that_was_ended_runs_elsewhere_and_so_do_all_from_then_on() -> None:
    async def test() -> None:
        tried: list[Any] = []

        def ended(batch: Any) -> Any:
            tried.append(batch)
            raise RunTimedOut

        bench = Bench(run_inline=ended, brief_s=ANY_S)
        slots = [await bench.submit(1)]
        await bench.release()
        for value in (2, 3):
            slots.append(await bench.submit(value))
            await bench.release()
        assert [values(await slot) for slot in slots] == [[2], [4], [6]]
        assert len(tried) == 1

    run(test)


def test_a_failure_on_the_loops_own_thread_reaches_every_member_and_no_other() -> None:
    async def test() -> None:
        bench = Bench(run_inline=RecordingModel(poison=3), brief_s=ANY_S)
        first = await bench.submit(1)
        await bench.release()
        together = [bench.ask(value) for value in (2, 3)]
        await turn()
        later = await bench.submit(4)
        assert values(await first) == [2]
        for slot in together:
            with pytest.raises(RuntimeError, match="poisoned"):
                await slot
        assert values(await later) == [8]

    run(test)


def test_what_the_loop_runs_itself_leaves_it_turns_for_others() -> None:
    async def test() -> None:
        here = RecordingModel()
        bench = Bench(run_inline=here, brief_s=ANY_S, max_batch_size=1)
        first = await bench.submit(0)
        await bench.release()
        slots = [bench.ask(value) for value in range(20)]
        turns = 0
        while not slots[-1].done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= len(slots), "other work has its turn after every batch"
        assert values(await first) == [0]
        assert len(here.batches) == len(slots)

    run(test)
