"""A client that sends anything at all, and reads whatever comes back. Knows no rules."""

import contextlib
import re
import select
import socket
import time
from typing import NamedTuple

CHUNK_BYTES = 1 << 18
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


class RawHttpClient:
    """Keeps its connection while the other side does."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._socket: socket.socket | None = None
        self._sent_all = False

    def send(
        self, request_bytes: bytes, *, timeout_s: float, is_head: bool = False, is_last: bool = False
    ) -> Answer | None:
        """The first answer to what is sent. None where the connection ends without one, or none has come for
        `timeout_s` after the last byte that was sent.

        It reads while it sends: who is refused need not send the rest. A connection that is not known to be at rest
        afterwards is not used again, nor after the `is_last` request. `is_head` answers have no body (HEAD).
        """
        sock = self._connected()
        received, reusable = b"", False
        try:
            received = self._exchange(sock, request_bytes, timeout_s, is_head)
            answer, rest = _parse(received, is_head)
            reusable = answer is not None and not answer.ends_connection and not rest and self._sent_all and not is_last
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

    def _exchange(self, sock: socket.socket, request_bytes: bytes, timeout_s: float, is_head: bool) -> bytes:
        unsent, received, deadline_s = memoryview(request_bytes), b"", time.monotonic() + timeout_s
        self._sent_all = False
        with contextlib.suppress(ConnectionError):
            while (wait_s := deadline_s - time.monotonic()) > 0:
                readable, writable, _ = select.select([sock], [sock] if unsent else [], [], wait_s)
                if readable:
                    data = sock.recv(CHUNK_BYTES)
                    received += data
                    if not data or _parse(received, is_head)[0] is not None:
                        break
                if writable:
                    unsent = unsent[_send(sock, unsent) :]
                    deadline_s = time.monotonic() + timeout_s
        self._sent_all = not unsent
        return received


def _send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data[:CHUNK_BYTES])
    except BrokenPipeError:  # an answer may still be there to be read
        return len(data)


def _parse(received: bytes, is_head: bool) -> tuple[Answer | None, bytes]:
    """The first whole answer, and what is behind it."""
    received = INTERIM.sub(b"", received)
    head, end, rest = received.partition(HEAD_END)
    if not end:
        return None, received
    first, *lines = head.split(b"\r\n")
    parts = [line.decode("latin-1").partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, _, value in parts}
    length = 0 if is_head else int(headers.get("content-length", "0"))
    if len(rest) < length:
        return None, received
    return Answer(int(first.split()[1]), headers, rest[:length]), rest[length:]
