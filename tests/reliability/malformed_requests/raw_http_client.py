"""A client that sends anything at all, and reads whatever comes back. Knows no rules."""

import contextlib
import re
import select
import socket
import time
from typing import NamedTuple

PIECE = 1 << 18
INTERIM = re.compile(rb"\AHTTP/1.1 1\d\d [^\r]*\r\n(?:[^\r]+\r\n)*\r\n")
HEAD_END = b"\r\n\r\n"


class Answer(NamedTuple):
    """Header names are in lower case; of several of one name the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ends_connection(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """Keeps its connection while the other side does."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._socket: socket.socket | None = None
        self._sent_all = False

    def ask(self, wire: bytes, *, patience_s: float, headless: bool = False, last: bool = False) -> Answer | None:
        """The first answer to what is sent. None where the connection ends without one, or none has come for
        `patience_s` after the last byte that was sent.

        It reads while it sends: who is refused need not send the rest. A connection that is not known to be at rest
        afterwards is not used again, nor after the `last` request. `headless` answers have no body (HEAD).
        """
        sock = self._connected()
        received, reusable = b"", False
        try:
            received = self._exchange(sock, wire, patience_s, headless)
            answer, rest = _parsed(received, headless)
            reusable = answer is not None and not answer.ends_connection and not rest and self._sent_all and not last
            return answer
        finally:
            if not reusable:
                self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is not None and select.select([self._socket], [], [], 0)[0]:
            self.close()  # something came unasked: its end, or what was left of the last answer
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setblocking(False)
        return self._socket

    def _exchange(self, sock: socket.socket, wire: bytes, patience_s: float, headless: bool) -> bytes:
        left, received, until_s = memoryview(wire), b"", time.monotonic() + patience_s
        self._sent_all = False
        with contextlib.suppress(ConnectionError):
            while (wait_s := until_s - time.monotonic()) > 0:
                readable, writable, _ = select.select([sock], [sock] if left else [], [], wait_s)
                if readable:
                    data = sock.recv(PIECE)
                    received += data
                    if not data or _parsed(received, headless)[0] is not None:
                        break
                if writable:
                    left = left[_send(sock, left) :]
                    until_s = time.monotonic() + patience_s
        self._sent_all = not left
        return received


def _send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data[:PIECE])
    except BrokenPipeError:  # an answer may still be there to be read
        return len(data)


def _parsed(received: bytes, headless: bool) -> tuple[Answer | None, bytes]:
    """The first whole answer, and what is behind it."""
    received = INTERIM.sub(b"", received)
    head, end, rest = received.partition(HEAD_END)
    if not end:
        return None, received
    first, *lines = head.split(b"\r\n")
    parts = [line.decode("latin-1").partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in parts}
    length = 0 if headless else int(headers.get("content-length", "0"))
    if len(rest) < length:
        return None, received
    return Answer(int(first.split()[1]), headers, rest[:length]), rest[length:]
