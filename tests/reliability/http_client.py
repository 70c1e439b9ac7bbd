"""A small HTTP/1.1 client for one connection that detects truncated and unrequested responses.

It supports only responses with a Content-Length, because Convoy sends no others.
"""

import asyncio
from typing import NamedTuple
from urllib.parse import urlsplit

HEAD_END = b"\r\n\r\n"


class Reply(NamedTuple):
    """One response. Header names are in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class ConnectionCut(Exception):
    """The connection ended before the response was complete.

    `port` is the client's port, and `received` is the partial response.
    """

    def __init__(self, port: int, received: bytes) -> None:
        super().__init__(f"connection of port {port} cut after {len(received)} bytes of a response")
        self.port = port
        self.received = received


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request in progress."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._future: asyncio.Future[Reply] | None = None
        self._head: tuple[int, dict[bytes, bytes], int] | None = None  # status, headers, end of the response
        self._transport: asyncio.Transport
        self.closed = False
        self.unrequested = b""
        """Bytes that arrived without a request, such as a duplicate response."""
        self.port = 0
        """The client's port."""

    @classmethod
    async def open(cls, url: str) -> "Connection":
        address = urlsplit(url)
        _, connection = await asyncio.get_running_loop().create_connection(cls, address.hostname, address.port)
        return connection

    async def send(self, request: bytes) -> Reply:
        """Sends a request and returns its response. Raises ConnectionCut."""
        if self.closed:
            raise ConnectionCut(self.port, b"")
        self._future = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._future
        finally:
            self._future = None

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        if self._future is None or self._future.done():
            self.unrequested += data
            return
        self._buffer += data
        if self._head is None and HEAD_END in self._buffer:
            self._head = _head(bytes(self._buffer))
        if self._head is not None and len(self._buffer) >= self._head[2]:
            self._finish(*self._head)

    def _finish(self, status: int, headers: dict[bytes, bytes], end: int) -> None:
        assert self._future is not None
        answer_bytes = bytes(self._buffer)
        self._buffer.clear()
        self._head = None
        self.unrequested += answer_bytes[end:]
        self._future.set_result(
            Reply(status, headers, answer_bytes[answer_bytes.index(HEAD_END) + len(HEAD_END) : end])
        )
        if headers.get(b"connection") == b"close":
            self.closed = True
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._future is not None and not self._future.done():
            self._future.set_exception(ConnectionCut(self.port, bytes(self._buffer)))


def request(
    method: str, path: str, body: bytes = b"", content_type: str = "", headers: dict[str, str] | None = None
) -> bytes:
    """Encodes a request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: convoy", f"Content-Length: {len(body)}"]
    lines += [f"Content-Type: {content_type}"] * bool(content_type)
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _head(answer: bytes) -> tuple[int, dict[bytes, bytes], int]:
    text, _, _ = answer.partition(HEAD_END)
    first, *lines = text.split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    return int(first.split()[1]), headers, len(text) + len(HEAD_END) + int(headers[b"content-length"])
