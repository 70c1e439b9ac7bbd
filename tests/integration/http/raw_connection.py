"""HTTP over a raw socket: sends bytes, reads responses, and measures when the connection ends."""

import contextlib
import json
import re
import socket
import time
from urllib.parse import urlparse

import pytest

from tests.support.service_process import RunningService

TIMEOUT_S = 30


class RawConnection:
    """A raw connection."""

    def __init__(self, service: RunningService, small_buffers: bool = False, address: str = "") -> None:
        """Opens the connection, from `address` if given. `small_buffers` limits the bytes that are buffered before they
        are read."""
        parsed = urlparse(service.url)
        self._socket = socket.socket()
        self._socket.settimeout(TIMEOUT_S)
        if small_buffers:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        if address:
            self._socket.bind((address, 0))
        self._socket.connect((parsed.hostname, parsed.port))
        self._buffer = b""

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read_head(self) -> tuple[int, dict[str, str]]:
        """Reads status and headers. Raises ConnectionError if the connection ends earlier."""
        head = self._until(b"\r\n\r\n")
        return int(head.split()[1]), dict(re.findall(r"^([^:\r\n]+): (.*)\r$", head.decode(), re.MULTILINE))

    def read_response(self) -> tuple[int, dict[str, str], bytes]:
        """Reads status, headers and body. Raises ConnectionError if the connection ends earlier."""
        status, headers = self.read_head()
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return status, headers, body

    def statuses(self) -> list[int]:
        """Reads all responses until the connection ends. Returns their statuses."""
        status_codes = []
        with contextlib.suppress(ConnectionError):
            while True:
                status_codes.append(self.read_response()[0])
        return status_codes

    def ended_after_s(self) -> float:
        """Returns the seconds until the server closes the connection. No data may arrive before."""
        started_s = time.monotonic()
        with pytest.raises(ConnectionError):
            self._until(b"never")
        assert self._buffer == b""
        return time.monotonic() - started_s

    def read(self, max_bytes: int) -> int:
        """Reads up to `max_bytes`. Returns the number of bytes read, 0 at a regular end. Raises
        ConnectionResetError."""
        return len(self._socket.recv(max_bytes))

    def read_all(self) -> int:
        """Reads to a regular end. Returns the number of bytes. Raises ConnectionResetError."""
        return sum(iter(lambda: self.read(65536), 0))

    def _until(self, delimiter: bytes) -> bytes:
        while delimiter not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(delimiter)
        return head + delimiter

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("it was closed")
        self._buffer += data


def post(body: bytes, *more: str, model: str = "linear", length: int | None = None) -> bytes:
    lines = [f"POST /api/v1/models/{model}/classify HTTP/1.1", "host: x", *more]
    length = len(body) if length is None else length
    return "\r\n".join([*lines, f"content-length: {length}", "\r\n"]).encode() + body


def get(path: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *more, "\r\n"]).encode()


def check_error(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    assert answer[0] == status, answer
    assert json.loads(answer[2])["error"]["code"] == code
    assert answer[1]["connection"] == "close"
