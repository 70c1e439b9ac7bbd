"""One process of the load generator, with one connection per thread. Imports nothing large, so that it starts quickly.

The first argument contains the settings as JSON. The process prints a line when it is ready, reads the start time, and
prints its results at the end.
"""

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

WARM_UP = 0.25
"""Share of the time whose responses are not counted."""
TIMEOUT_S = 30.0


def main() -> None:
    settings = json.loads(sys.argv[1])
    requests = [_request(settings["url"], settings["headers"], Path(file).read_bytes()) for file in settings["files"]]
    clients = [
        _Client(settings, requests[i % len(requests) :] + requests[: i % len(requests)])
        for i in range(settings["connections"])
    ]
    print("ready", flush=True)
    begin_s = float(sys.stdin.readline())
    time.sleep(max(0.0, begin_s - time.monotonic()))
    for client in clients:
        client.begin(begin_s)
    for client in clients:
        client.join()
    latencies_ms = [ms for client in clients for ms in client.latencies_ms]
    print(json.dumps({"latencies_ms": latencies_ms, "failed": sum(client.failed for client in clients)}))


class _Client(threading.Thread):
    """A thread with one connection."""

    def __init__(self, settings: dict[str, Any], requests: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.latencies_ms: list[float] = []
        self.failed = 0
        self._address = urlsplit(settings["url"])
        self._requests = requests
        self._seconds = settings["seconds"]

    def begin(self, begin_s: float) -> None:
        """Starts the thread."""
        self._counted_from_s = begin_s + WARM_UP * self._seconds
        self._end_s = begin_s + self._seconds
        self.start()

    def run(self) -> None:
        try:
            with socket.create_connection((self._address.hostname, self._address.port), TIMEOUT_S) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._send_requests(connection)
        except OSError:
            self.failed += 1

    def _send_requests(self, connection: socket.socket) -> None:
        number = 0
        while (sent_s := time.monotonic()) < self._end_s:
            connection.sendall(self._requests[number % len(self._requests)])
            number += 1
            status = read_status(connection)
            done_s = time.monotonic()
            if self._counted_from_s <= done_s <= self._end_s:
                self.failed += status != 200
                self.latencies_ms.append((done_s - sent_s) * 1000)


def _request(url: str, headers: dict[str, str], body: bytes) -> bytes:
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_status(connection: socket.socket) -> int:
    """Reads one response and returns its status. Raises OSError if it is cut off or has no length."""
    head, _, rest = _receive_head(connection).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" not in fields:
        raise OSError("a response without its length")
    remaining = int(fields["content-length"]) - len(rest)
    while remaining > 0:
        remaining -= len(_receive(connection))
    return int(first.split(" ")[1])


def _receive_head(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    return received


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise OSError("the connection was closed")
    return received


if __name__ == "__main__":
    main()
