"""Targets for worker processes that exit in different ways. There are few imports, so that the processes start
quickly."""

import os
import signal
from socket import socket

EXIT_CODE = 7


def die_at_once(sock: socket, worker_id: int) -> None:
    os._exit(EXIT_CODE)


def only_the_first_stays(sock: socket, worker_id: int) -> None:
    """Worker 0 runs until SIGTERM; all other workers exit immediately."""
    if worker_id == 0:
        signal.pause()
    os._exit(EXIT_CODE)


def end_with_lost_requests(sock: socket, worker_id: int) -> None:
    """Exits with code 1 on SIGTERM, like a worker that lost requests.

    Writes to a client when this process is ready for SIGTERM.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    sock.setblocking(True)
    client, _ = sock.accept()
    client.send(b"!")
    signal.pause()


def end_at_the_second_signal(sock: socket, worker_id: int) -> None:
    """Keeps running after SIGTERM, like a worker that still answers requests, and exits with code 1 on SIGINT.

    Writes to a client when this process is ready for SIGTERM, and again when it is ready for SIGINT.
    """
    sock.setblocking(True)
    client, _ = sock.accept()
    # Blocked and waited for, because a signal just before a pause would be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        client.send(b"!")
        signal.sigwait({signal_number})
    os._exit(1)
