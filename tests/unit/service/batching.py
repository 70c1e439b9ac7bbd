"""A batcher whose model runs only when the test allows it."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

import numpy as np

from service.inference.batch import InferenceResult
from service.inference.batcher import Batcher
from tests.unit.service.fakes import ManualExecutor, RecordingModel


class BatcherHarness:
    """A batcher with a model whose runs wait for `run_next` or `run_all`."""

    def __init__(self, poison: float | None = None, model: Any = None, **options: Any) -> None:
        self.model = RecordingModel(poison) if model is None else model
        self.executor = ManualExecutor()
        self.batcher = Batcher(self.model, self.executor, **({"max_batch_size": 4, "max_queue_images": 100} | options))

    def enqueue(
        self, *values: float, timeout_s: float | None = None, background: bool = False
    ) -> asyncio.Task[InferenceResult]:
        """Starts a request with one image per value. It is queued in the next iteration of the event loop."""
        self.batcher.reserve(len(values), timeout_s, background)
        return asyncio.create_task(self.batcher.infer(images(*values), timeout_s, background))

    async def submit(
        self, *values: float, timeout_s: float | None = None, background: bool = False
    ) -> asyncio.Task[InferenceResult]:
        """Starts a request like `enqueue`, and runs the event loop so that an idle model starts."""
        task = self.enqueue(*values, timeout_s=timeout_s, background=background)
        await run_callbacks()
        return task

    async def run_next(self, newest: bool = False) -> None:
        self.executor.run_next(newest)
        await run_callbacks()

    async def run_all(self) -> None:
        while self.executor.pending:
            await self.run_next()


class ManualClock:
    """A clock that does not advance until the test advances it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class TimedModel(RecordingModel):
    """A RecordingModel that takes 10 ms for each image on the clock."""

    def __init__(self, clock: ManualClock, poison: float | None = None) -> None:
        super().__init__(poison)
        self._clock = clock

    def __call__(self, images: Any) -> Any:
        self._clock.now_s += 0.01 * len(images)
        return super().__call__(images)


def images(*values: float) -> Any:
    return np.array(values, np.float32).reshape(-1, 1)


def values(result: InferenceResult) -> list[float]:
    return result.outputs[:, 0].tolist()  # type: ignore[no-any-return]


async def run_callbacks() -> None:
    """Runs enough iterations of the event loop for all callbacks that are due."""
    for _ in range(4):
        await asyncio.sleep(0)


class NeverWaits(selectors.DefaultSelector):
    """Fails if an event loop would wait, because in a test with one thread and manual time no event can wake it."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        assert events or timeout == 0, "The test waits for an event that never happens."
        return events


class ManualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time advances only in `pass_time`, and that never waits."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(NeverWaits())

    def time(self) -> float:
        return self.now_s


async def pass_time(seconds: float) -> None:
    """Advances the time of a ManualTimeLoop, and runs the callbacks that are due then."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ManualTimeLoop)
    loop.now_s += seconds
    await run_callbacks()


def run_in_manual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with closing(ManualTimeLoop()) as loop:
        loop.run_until_complete(test())
