"""Ends runs that hold up the thread they are on, from another thread. Knows nothing of what runs."""

import threading
from collections.abc import Callable
from types import TracebackType

PATIENCE_S = 0.25


class RunTimedOut(Exception):
    """A run was ended because it held up its thread."""


class RunTimeout:
    """A context around one run at a time; `end` is called once it has taken `timeout_s`, up to twice that.

    Entering and leaving cost 0.2 us: the thread looks only now and then, and sleeps while nothing runs.
    """

    def __init__(self, end: Callable[[], None], timeout_s: float = PATIENCE_S) -> None:
        self._end = end
        self._patience_s = timeout_s
        self._begun = self._over = 0
        self._awake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        self._begun += 1
        if not self._awake.is_set():
            self._wake()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over = self._begun

    def close(self) -> None:
        """Lets the thread go."""
        self._closed.set()
        self._awake.set()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="leash", daemon=True)
            self._thread.start()
        self._awake.set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._awake.wait()
            begun = self._begun
            self._closed.wait(self._patience_s)
            if begun != self._begun:
                continue
            if begun != self._over:
                self._end()
                continue
            self._awake.clear()
            if begun != self._begun or self._closed.is_set():  # meanwhile, seeing it set
                self._awake.set()
