"""The leash: a run that takes too long is ended from another thread, and no other run is."""

import threading
import time

from service.inference.run_timeout import RunTimeout


class Ended(threading.Event):
    """Set when a run was ended; `times` says how often."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def end(self) -> None:
        self.times += 1
        self.set()


def test_a_run_that_takes_too_long_is_ended() -> None:
    ended = Ended()
    with RunTimeout(ended.end, timeout_s=0.01):
        assert ended.wait(30)


def test_runs_that_are_soon_over_are_never_ended() -> None:
    ended = Ended()
    leash = RunTimeout(ended.end, timeout_s=1)
    end_s = time.monotonic() + 2.5
    while time.monotonic() < end_s:
        with leash:
            pass
    assert ended.times == 0


def test_a_run_after_a_rest_is_watched_again() -> None:
    ended = Ended()
    leash = RunTimeout(ended.end, timeout_s=0.01)
    for _ in range(3):
        with leash:
            assert ended.wait(30)
        while leash._awake.is_set():  # until the thread falls asleep
            time.sleep(0.001)
        ended.clear()


def test_a_leash_that_is_let_go_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    leash = RunTimeout(lambda: None, timeout_s=60)
    with leash:
        pass
    [thread] = set(threading.enumerate()) - before
    leash.close()
    thread.join(30)
    assert not thread.is_alive()


def test_what_never_runs_needs_no_thread() -> None:
    before = set(threading.enumerate())
    RunTimeout(lambda: None).close()
    assert set(threading.enumerate()) <= before
