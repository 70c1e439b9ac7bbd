"""Parts of a graceful shutdown: its progress, and a kernel filter that drops new connections.

The server writes the progress and the HTTP side reads it. When to stop and what to wait for is decided by the server
and the supervisor.
"""

import contextlib
import ctypes
import socket
import struct
from dataclasses import dataclass

# <linux/filter.h> and <asm-generic/socket.h>, which Python does not name.
SO_ATTACH_FILTER = 26
BPF_RETURN, DROP = 0x06, 0


@dataclass(slots=True)
class Lifecycle:
    """First `stopping`: told to stop, not ready any more. Then `closing`: nobody can connect any more, and every
    answer ends its connection. A client that were sent away earlier would come back by a new connection, and lose it.
    `gave_up` at the end: something did not come to an end in its time.
    """

    stopping: bool = False
    closing: bool = False
    gave_up: bool = False


def drop_new_connections(sock: socket.socket) -> None:
    """From now on Linux drops whoever knocks at the socket, for all processes that share it; who waits is kept.

    Else one is let in now and then between the last `accept` and the closing, which resets its connection: one stop in
    25 under load. Who was dropped calls again a second later. Elsewhere than on Linux nothing is done.
    """
    program = ctypes.create_string_buffer(struct.pack("=HBBI", BPF_RETURN, 0, 0, DROP))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
