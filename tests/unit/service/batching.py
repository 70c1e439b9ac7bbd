"""A batcher whose model runs when the test says so."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from service.inference.batch import BatchResult
from service.inference.batcher import Batcher
from tests.unit.service.fakes import HeldExecutor, RecordingModel

PATIENCE_S = 30.0


class Bench:
    """A batcher in front of a model that the test releases run by run."""

    def __init__(self, poison: float | None = None, **options: Any) -> None:
        self.model = RecordingModel(poison)
        self.executor = HeldExecutor()
        self.batcher = Batcher(self.model, self.executor, **({"max_batch_size": 4, "max_queue_images": 100} | options))

    def ask(
        self, *values: float, timeout_s: float | None = None, background: bool = False
    ) -> asyncio.Task[BatchResult]:
        """A request of one image a value, which is queued when the loop turns."""
        self.batcher.reserve(len(values))
        return asyncio.create_task(self.batcher.answer(images(*values), timeout_s, background))

    async def submit(
        self, *values: float, timeout_s: float | None = None, background: bool = False
    ) -> asyncio.Task[BatchResult]:
        """The same, and lets the loop turn so that a free model starts."""
        slot = self.ask(*values, timeout_s=timeout_s, background=background)
        await turn()
        return slot

    async def release(self) -> None:
        self.executor.release()
        await turn()

    async def release_all(self) -> None:
        while self.executor.held:
            await self.release()


def images(*values: float) -> Any:
    return np.array(values, np.float32).reshape(-1, 1)


def values(answer: BatchResult) -> list[float]:
    return answer.outputs[:, 0].tolist()  # type: ignore[no-any-return]


async def turn() -> None:
    """A few turns of the loop: enough for every callback that is due."""
    for _ in range(4):
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), PATIENCE_S)

    asyncio.run(bounded())
