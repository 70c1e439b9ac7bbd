"""The run timeout: a run that takes too long is terminated from another thread, and no other run is terminated."""

import threading
import time

import pytest

from service.inference.run_timeout import AbandonableRuns, RunTimedOut, RunTimeout


class TerminateRecorder(threading.Event):
    """Set when a run was terminated; `times` counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def terminate(self) -> None:
        self.times += 1
        self.set()


def test_a_run_that_takes_too_long_is_ended() -> None:
    recorder = TerminateRecorder()
    with RunTimeout(recorder.terminate, timeout_s=0.01):
        assert recorder.wait(30)


def test_runs_that_are_soon_over_are_never_ended() -> None:
    recorder = TerminateRecorder()
    run_timeout = RunTimeout(recorder.terminate, timeout_s=1)
    end_s = time.monotonic() + 2.5
    while time.monotonic() < end_s:
        with run_timeout:
            pass
    assert recorder.times == 0


def test_a_run_after_a_rest_is_watched_again() -> None:
    recorder = TerminateRecorder()
    run_timeout = RunTimeout(recorder.terminate, timeout_s=0.01)
    for _ in range(3):
        with run_timeout:
            assert recorder.wait(30)
        while run_timeout._awake.is_set():  # until the thread falls asleep
            time.sleep(0.001)
        recorder.clear()


def test_a_run_timeout_that_is_closed_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    run_timeout = RunTimeout(lambda: None, timeout_s=60)
    with run_timeout:
        pass
    [thread] = set(threading.enumerate()) - before
    run_timeout.close()
    thread.join(30)
    assert not thread.is_alive()


def test_without_a_run_no_thread_is_started() -> None:
    before = set(threading.enumerate())
    RunTimeout(lambda: None).close()
    assert set(threading.enumerate()) <= before


def test_a_run_that_cannot_be_ended_is_abandoned() -> None:
    before, is_released = set(threading.enumerate()), threading.Event()
    runs = AbandonableRuns(lambda timeout_s: is_released.wait(timeout_s), timeout_s=0.01)
    (thread,) = set(threading.enumerate()) - before
    with pytest.raises(RunTimedOut):
        runs.run(30.0)
    runs.close()
    assert thread.is_alive()
    is_released.set()
    thread.join(30)
    assert not thread.is_alive()


def test_runs_that_end_give_their_result_or_error_and_leave_no_thread() -> None:
    before = set(threading.enumerate())
    runs = AbandonableRuns(lambda divisor: 6 / divisor, timeout_s=30)
    assert runs.run(3) == 2
    with pytest.raises(ZeroDivisionError):
        runs.run(0)
    assert runs.run(2) == 3
    runs.close()
    assert set(threading.enumerate()) == before
