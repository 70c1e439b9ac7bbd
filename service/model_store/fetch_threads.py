"""Runs a function over many items in daemon threads, so that a process that ends does not wait for a download."""

import queue
import threading
from collections.abc import Callable, Iterable


def run_in_threads(
    function: Callable[[str], None],
    items: Iterable[str],
    max_threads: int,
    meanwhile: Callable[[], None],
    interval_s: float,
) -> None:
    """Calls `function` with every item, in order, in up to `max_threads` threads, and waits for all calls.

    Calls `meanwhile` every `interval_s` seconds while it waits. After an error no further call begins, and the error is
    raised.
    """
    pending: queue.SimpleQueue[str] = queue.SimpleQueue()
    for item in items:
        pending.put(item)
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            try:
                item = pending.get_nowait()
            except queue.Empty:
                return
            try:
                function(item)
            except BaseException as error:
                errors.append(error)

    count = min(max_threads, pending.qsize())
    threads = [threading.Thread(target=work, name="fetch", daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(interval_s)
            if thread.is_alive():
                meanwhile()
    if errors:
        raise errors[0]
