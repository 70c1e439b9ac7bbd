"""Ends a command on SIGTERM or SIGINT in any state, with the exit code of the signal."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from service.exit_codes import EXIT_SIGNAL_BASE

GRACE_S = 5.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal(BaseException):
    """SIGTERM or SIGINT arrived. It is a BaseException, so that handlers of errors do not catch it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.exit_code = EXIT_SIGNAL_BASE + signal_number


@contextmanager
def stop_signals(grace_s: float = GRACE_S, exit_now: Callable[[int], object] = os._exit) -> Iterator[None]:
    """Raises StopSignal in the block on the first SIGTERM or SIGINT, and ignores later ones. For the main thread.

    Raises StopSignal in place of any other error after that, because libraries turn it into errors of their own, such
    as an ImportError. If the process has not ended after `grace_s` seconds, `exit_now` ends it: the main thread may be
    blocked in a library that no exception reaches, and threads that never end would block the exit of the interpreter.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    received: list[int] = []

    def raise_stop(signal_number: int, frame: FrameType | None) -> None:
        received.append(signal_number)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise StopSignal(signal_number)

    def end_after_grace() -> None:
        with reader:
            signal_numbers = reader.recv(1)
        if signal_numbers:
            threading.Event().wait(grace_s)
            exit_now(EXIT_SIGNAL_BASE + signal_numbers[0])

    threading.Thread(target=end_after_grace, name="stop", daemon=True).start()
    # The signal is written to the fd even while the main thread is busy in a library.
    previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    previous = {number: signal.signal(number, raise_stop) for number in STOP_SIGNALS}
    try:
        yield
    except BaseException as error:
        if not received:
            raise
        previous.clear()  # keeps further signals ignored
        raise StopSignal(received[0]) from error
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        writer.close()
