"""Small or slow requests of one address cannot exhaust a worker's memory budgets, and others get responses.

Timeouts are several seconds here. `make bench-overload` measures figures that depend on the machine.
"""

import base64
import gzip
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.reliability.process_resources import ResourceMeter, workers_of
from tests.support.images import encode
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

pytestmark = pytest.mark.long

MIN_REQUESTS, MAX_REQUESTS, MIN_ROUNDS, MIN_ANSWERED = 20, 2000, 20, 0.9
CLIENT_ADDRESS = "127.0.0.2"
CLASSES, LARGE_SIDE_PX, COUNT, MAX_CONNECTIONS = 1000, 512, 1024, 200
BODY_BYTES, INPUT_BYTES = 100_000_000, 150_000_000
SETTINGS = {"max_inflight_body_bytes": BODY_BYTES, "max_input_bytes": INPUT_BYTES, "max_connections": MAX_CONNECTIONS}
OTHER_BYTES = 300_000_000  # for parsing, a running batch, decoders, threads, and memory that malloc keeps
PIXEL = base64.b64encode(encode(np.zeros((1, 1, 1), np.uint8), "PNG")).decode()


def post(path: str, body: bytes, headers: str = "", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n".encode() + body


def packed(path: str, text: bytes) -> bytes:
    headers = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
    return post(path, gzip.compress(text), headers)


def json_bytes(document: object) -> bytes:
    return json.dumps(document).encode()


TENSOR = np.zeros((8, 8, 1), np.uint8).tolist()
ALL_CLASSES = {"instances": [TENSOR] * COUNT, "parameters": {"top_k": 1_000_000}}
LARGE_ANSWER = {"instances": [TENSOR] * COUNT}
TINY_IMAGES = {"images": [{"data": PIXEL}] * COUNT}
FITTING_IMAGES = {"images": [{"data": PIXEL}] * (INPUT_BYTES // (3 * LARGE_SIDE_PX**2))}
MEMBERS = b'{"parameters":{' + b",".join([b'"":0'] * 3_300_000) + b"}}"

Attack = tuple[bytes, int, bool]
"""The request per connection, the number of connections, and whether they read responses and repeat."""

ATTACKS: dict[str, Attack] = {
    "all classes by name": (packed("/v1/models/wide:predict", json_bytes(ALL_CLASSES)), 4, True),
    "answers that are not read": (packed("/v1/models/wide:predict", json_bytes(LARGE_ANSWER)), 40, False),
    "members of an object": (packed("/v2/models/linear/infer", MEMBERS), 8, True),
    "one pixel for a large input": (packed("/api/v1/models/large/classify/batch", json_bytes(TINY_IMAGES)), 4, True),
    "as many as fit": (packed("/api/v1/models/large/classify/batch", json_bytes(FITTING_IMAGES)), 8, True),
    "bodies that stop": (post("/api/v1/models/linear/classify", bytes(5_000_000), length=15_000_000), 40, False),
    "empty lines": (b"\r\n", 2 * MAX_CONNECTIONS, False),
    "hanging up": (post("/api/v1/models/large/classify", encode(np.zeros((90, 90, 3), np.uint8), "PNG")), 0, False),
}


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RunningService]:
    root = tmp_path_factory.mktemp("attacks") / "models"
    write_version(root, "linear")
    write_version(root, "wide", classes=CLASSES)
    write_version(root, "large", shape=(LARGE_SIDE_PX, LARGE_SIDE_PX, 3))
    with RunningService(root, workers=request.param, **SETTINGS) as running:
        yield running


class Attackers:
    """Connections from one address that all send the same request."""

    def __init__(self, service: RunningService, data: bytes) -> None:
        address = urlsplit(service.url)
        self._address = (address.hostname, address.port)
        self._data = data
        self._sockets: list[socket.socket] = []
        self.stopped = threading.Event()
        self.rounds = 0

    def hold(self, count: int) -> None:
        """Sends once over each of `count` connections, and keeps them open without reading."""
        for _ in range(count):
            with suppress(OSError):  # the service closes some connections to free memory
                self._sockets.append(self._open())
        self.rounds = MIN_ROUNDS

    def repeat(self) -> None:
        """Sends the request, reads the beginning of the response, and repeats."""
        while not self.stopped.wait(0.1):
            with suppress(OSError), self._open() as connection:
                connection.recv(1000)
                self.rounds += 1

    def hang_up(self) -> None:
        while not self.stopped.wait(0.01):
            with suppress(OSError):
                self._open().close()
                self.rounds += 1

    def close(self) -> None:
        self.stopped.set()
        for connection in self._sockets:
            connection.close()

    def _open(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=10)
        connection.settimeout(10)
        connection.sendall(self._data)
        return connection


@contextmanager
def attack(service: RunningService, data: bytes, connections: int, reads: bool) -> Iterator[Attackers]:
    attackers = Attackers(service, data)
    workers: list[Callable[[], None]] = [attackers.repeat] * connections if reads else []
    with ThreadPoolExecutor(max(1, connections)) as pool:
        try:
            for work in workers or ([attackers.hang_up] if not connections else []):
                pool.submit(work)
            if not reads:
                attackers.hold(connections)
            yield attackers
        finally:
            attackers.close()


@pytest.mark.parametrize(("data", "connections", "reads"), ATTACKS.values(), ids=ATTACKS.keys())
def test_a_worker_stays_within_its_budgets_and_answers_others(
    service: RunningService, data: bytes, connections: int, reads: bool
) -> None:
    jpeg = encode(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8), "JPEG")
    transport = httpx.HTTPTransport(local_address=CLIENT_ADDRESS)
    meters = [ResourceMeter(pid) for pid in workers_of(service.process.pid)]
    for meter in meters:
        meter.start()
    with (
        attack(service, data, connections, reads) as attackers,
        httpx.Client(base_url=service.url, transport=transport, timeout=60) as client,
    ):
        answers: list[httpx.Response] = []
        while len(answers) < MIN_REQUESTS or (attackers.rounds < MIN_ROUNDS and len(answers) < MAX_REQUESTS):
            answers.append(client.post("/api/v1/models/linear/classify", content=jpeg))
        assert client.get("/health/live").status_code == 200
    statuses = Counter(answer.status_code for answer in answers)
    assert attackers.rounds >= MIN_ROUNDS
    assert statuses[200] >= MIN_ANSWERED * len(answers), statuses
    assert statuses.keys() <= {200, 429, 503}
    assert max(meter.extra_bytes() for meter in meters) < BODY_BYTES + INPUT_BYTES + OTHER_BYTES
