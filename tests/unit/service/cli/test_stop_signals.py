"""SIGTERM and SIGINT end a command in any state, with 128 plus their number."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from service.cli.stop_signals import StopSignal, stop_signals

PROGRAM = """
import ctypes, os, sys, threading, time
from service.cli.stop_signals import StopSignal, stop_signals

def block_in_c():
    print("ready", flush=True)
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)  # the second one never returns, whatever signal arrives

def block_in_cleanup():
    try:
        print("ready", flush=True)
        threading.Event().wait()
    finally:
        threading.Event().wait()

STATES = {
    "waiting": lambda: (print("ready", flush=True), threading.Event().wait()),
    "in a library": block_in_c,
    "in its cleanup": block_in_cleanup,
    "beside a thread": lambda: (threading.Thread(target=block_in_c).start(), threading.Event().wait()),
}
try:
    with stop_signals(grace_s=0.1):
        STATES[sys.argv[1]]()
except StopSignal as stop:
    sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize("state", ["waiting", "in a library", "in its cleanup", "beside a thread"])
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_process_in_any_state(state: str, number: signal.Signals, exit_code: int) -> None:
    command = [sys.executable, "-c", PROGRAM, state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (exit_code, "")


def stop_in_import() -> None:
    with stop_signals(grace_s=0, exit_now=lambda code: None):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except StopSignal:
            raise ImportError("initialization failed") from None


def stop_twice() -> None:
    with stop_signals(grace_s=0, exit_now=lambda code: None):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("stop", [stop_twice, stop_in_import])
def test_only_the_first_signal_is_raised_whatever_a_library_makes_of_it(stop: Callable[[], None]) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(StopSignal) as raised:
            stop()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert raised.value.exit_code == 143


def test_without_a_signal_the_previous_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
