"""Threads that run beside the code of a `with` block, such as clients and samplers."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class BackgroundThreads:
    """Runs each function in its own thread within the context. The end sets `stopping` and waits for the threads."""

    def __init__(self, *functions: Callable[[], None]) -> None:
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=function, daemon=True) for function in functions]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()
