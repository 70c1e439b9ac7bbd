"""Runs background tasks: a failed task is logged, counted, and restarted after a growing delay.

After repeated failures the worker is not ready, until the task succeeds. Independent of what the tasks do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from service.observability import logs
from service.observability.metrics import Metrics

FIRST_RESTART_DELAY_S = 1.0
MAX_RESTART_DELAY_S = 30.0
MAX_FAILURES = 5
"""Consecutive failures of a task after which the worker is not ready: 15 s after the first, if it fails immediately."""

OnSuccess = Callable[[], None]
Run = Callable[[OnSuccess], Coroutine[Any, Any, None]]


class BackgroundTasks:
    """Tasks that run until `stop`. Everything runs on the event loop's thread."""

    def __init__(self, metrics: Metrics, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._metrics = metrics
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []
        self._failures: dict[str, int] = {}  # consecutive
        self._last_errors: dict[str, str] = {}

    def start(self, name: str, run: Run) -> None:
        """Runs `run(on_success)`, which never returns and calls `on_success` each time its work is done.

        It is called again after a failure, and must then continue where it stopped.
        """
        self._metrics.background_failures.labels(name)  # visible before the first failure
        self._failures[name] = 0
        self._tasks.append(asyncio.create_task(self._supervise(name, run), name=name))

    def not_ready_reasons(self) -> dict[str, str]:
        """Returns the reason for each task that has failed repeatedly, by the name of the task."""
        return {
            f"background task {name}": f"The task failed {count} times in a row, and is restarted: "
            f"{self._last_errors[name]}"
            for name, count in self._failures.items()
            if count >= MAX_FAILURES
        }

    async def stop(self) -> None:
        """Cancels all tasks, and waits until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _supervise(self, name: str, run: Run) -> None:
        while True:
            try:
                await run(lambda: self._record_success(name))
                error: BaseException = RuntimeError("It returned.")
            except asyncio.CancelledError as cancelled:
                if _is_being_cancelled():
                    raise
                error = cancelled  # cancelled by code inside the task, which must not end the task
            except Exception as failure:
                error = failure
            await self._sleep(self._record_failure(name, error))

    def _record_success(self, name: str) -> None:
        self._failures[name] = 0

    def _record_failure(self, name: str, error: BaseException) -> float:
        """Logs and counts the failure. Returns the seconds until the restart."""
        self._failures[name] += 1
        self._last_errors[name] = repr(error)
        self._metrics.background_failures.labels(name).inc()
        failures = self._failures[name]
        delay_s = min(MAX_RESTART_DELAY_S, FIRST_RESTART_DELAY_S * 2.0 ** min(failures - 1, 10))
        fields = {"task": name, "failures": failures, "restart_s": delay_s}
        logs.logger.error("background task failed", exc_info=error, extra={"fields": fields})
        return delay_s


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
