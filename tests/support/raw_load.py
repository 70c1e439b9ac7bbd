"""Clients of a service behind a load balancer that detect every cut connection and every wrong response."""

import asyncio
import threading

from tests.support.images import image_bytes

CLIENTS = 24
PATH = "/api/v1/models/linear/classify"


class RawLoad(threading.Thread):
    """Closed-loop clients that run until they are stopped."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._body = image_bytes()
        self.answered = 0
        self.connections = 0
        self.lost: list[str] = []
        self.stopping = False

    def run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        await asyncio.gather(*(self._client(keep_alive=number % 4 != 0) for number in range(CLIENTS)))

    async def _client(self, keep_alive: bool) -> None:
        close = "" if keep_alive else "Connection: close\r\n"
        head = f"POST {PATH} HTTP/1.1\r\nHost: convoy\r\n{close}Content-Length: {len(self._body)}\r\n\r\n"
        request = head.encode() + self._body
        while not self.stopping:
            try:
                await self._connection(request)
            except (OSError, EOFError, ValueError) as error:
                self.lost.append(repr(error))
                await asyncio.sleep(0.01)

    async def _connection(self, request: bytes) -> None:
        """Uses one connection until a response closes it. Raises an error for a missing or wrong response."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connections += 1
        try:
            while not self.stopping:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                answer = await reader.readexactly(length)
                if not head.startswith(b"http/1.1 200 ") or b'"class-' not in answer:
                    raise ValueError(f"{head!r} {answer!r}")
                self.answered += 1
                if b"connection: close" in head:
                    return
        finally:
            writer.close()
