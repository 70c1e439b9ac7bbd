"""Fakes for the collaborators of the service's modules."""

import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class ManualExecutor(Executor):
    """Keeps jobs until `run_next`. They run on the test's thread, so their order is deterministic."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    @property
    def pending(self) -> int:
        return len(self._jobs)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_next(self, newest: bool = False) -> None:
        """Runs the oldest job, or the newest."""
        future, job = self._jobs.pop() if newest else self._jobs.popleft()
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)


class RecordingModel:
    """Returns the double of each image, and records the batches. Fails on a batch that contains the image `poison`."""

    def __init__(self, poison: float | None = None) -> None:
        self.batches: list[list[float]] = []
        self._poison = poison

    def __call__(self, images: Any) -> Any:
        self.batches.append(images[:, 0].tolist())
        if self._poison in self.batches[-1]:
            raise RuntimeError("poisoned")
        return images * 2


class ManualLoop:
    """An event loop whose time advances only in `run_for`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[ManualTimer] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, seconds: float, callback: Callable[[], None]) -> "ManualTimer":
        timer = ManualTimer(self, self.now_s + seconds, callback)
        self.timers.append(timer)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> "ManualTimer":
        return self.call_later(0, callback)

    def run_for(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while due := [timer for timer in self.timers if timer.at_s <= end_s]:
            first = min(due, key=lambda timer: timer.at_s)
            self.timers.remove(first)
            self.now_s = first.at_s
            first.callback()
        self.now_s = end_s


class ManualTimer:
    def __init__(self, loop: ManualLoop, at_s: float, callback: Callable[[], None]) -> None:
        self.at_s, self.callback = at_s, callback
        self._loop = loop

    def cancel(self) -> None:
        self._loop.timers.remove(self)


class FullTransport:
    """A transport whose peer does not read. `waiting` bytes are buffered, and `written` records later writes."""

    def __init__(self, sock: socket.socket, waiting: int) -> None:
        self.waiting = waiting
        self.written: list[bytes] = []
        self.aborted = self.closed = self.is_half_closed = False
        self._extra = {"socket": sock, "peername": ("192.0.2.1", 1234)}

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def writelines(self, parts: list[bytes]) -> None:
        self.written += parts

    def get_extra_info(self, name: str) -> Any:
        return self._extra.get(name)

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def write_eof(self) -> None:
        self.is_half_closed = True

    def resume_reading(self) -> None:
        """Does nothing, because no data arrives."""

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True
