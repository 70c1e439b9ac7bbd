"""A client that sends arbitrary bytes and reads the response without checking it."""

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
    """A response. Header names are in lower case. If several headers have the same name, the last one counts."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ends_connection(self) -> bool:
        return self.headers.get("connection") == "close"


class RawHttpClient:
    """Sends requests over one connection, which is reopened after the server closes it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._socket: socket.socket | None = None
        self._sent_all = False

    def send(
        self, request_bytes: bytes, *, timeout_s: float, is_head: bool = False, is_last: bool = False
    ) -> Answer | None:
        """Sends bytes and returns the first response, or None if the connection ends or times out without one.

        The timeout starts after the last byte was sent. The client reads while it sends, so that it can stop after an
        early response. The connection is closed after an `is_last` request, and whenever it may contain unread data.
        Responses to `is_head` requests have no body.
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
            self.close()  # unrequested data: the end of the connection, or the rest of the last response
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
    except BrokenPipeError:  # a response may still be readable
        return len(data)


def _parse(received: bytes, is_head: bool) -> tuple[Answer | None, bytes]:
    """Parses the first complete response. Returns it and the remaining bytes."""
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
