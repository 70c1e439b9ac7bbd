"""Named stand-ins for what the service's modules are given."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class HeldExecutor(Executor):
    """Keeps every job until the test releases it; jobs run on the test's own thread, so nothing is left to chance."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    @property
    def held(self) -> int:
        return len(self._jobs)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def release(self) -> None:
        """Runs the oldest job."""
        future, job = self._jobs.popleft()
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)


class RecordingModel:
    """Answers each image with its double, and remembers the batches; fails on a batch that holds a `poison` image."""

    def __init__(self, poison: float | None = None) -> None:
        self.batches: list[list[float]] = []
        self._poison = poison

    def __call__(self, images: Any) -> Any:
        self.batches.append(images[:, 0].tolist())
        if self._poison in self.batches[-1]:
            raise RuntimeError("poisoned")
        return images * 2
