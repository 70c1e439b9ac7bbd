"""Small or slow requests from one address cannot exhaust a worker's memory budgets, and other clients get responses.

Timeouts are several seconds here. `python -m tests.reliability attacks` measures the figures that depend on the
machine.
"""

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from tests.reliability.attacks.attack_requests import (
    BODY_BYTES,
    INPUT_BYTES,
    MEMORY_ATTACKS,
    OTHER_BYTES,
    SETTINGS,
    Attack,
    client_requests,
    write_models,
)
from tests.reliability.attacks.measure_attacks import send
from tests.reliability.process_resources import ResourceMeter, workers_of
from tests.support.service_process import RunningService

pytestmark = pytest.mark.long

MIN_REQUESTS, MAX_REQUESTS, MIN_ROUNDS, MIN_ANSWERED = 20, 2000, 20, 0.9
CLIENT_ADDRESS = "127.0.0.2"


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RunningService]:
    root = tmp_path_factory.mktemp("attacks") / "models"
    write_models(root)
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
        """Sends the request, reads the beginning of the response, and starts again."""
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
def attacking(service: RunningService, attack: Attack) -> Iterator[Attackers]:
    attackers = Attackers(service, attack.data)
    with ThreadPoolExecutor(attack.connections) as pool:
        try:
            if attack.is_read:
                for _ in range(attack.connections):
                    pool.submit(attackers.hang_up if attack.hangs_up else attackers.repeat)
            else:
                attackers.hold(attack.connections)
            yield attackers
        finally:
            attackers.close()


@pytest.mark.parametrize("attack", MEMORY_ATTACKS.values(), ids=MEMORY_ATTACKS.keys())
def test_a_worker_stays_within_its_budgets_and_answers_others(service: RunningService, attack: Attack) -> None:
    requests = itertools.cycle(client_requests())
    transport = httpx.HTTPTransport(local_address=CLIENT_ADDRESS)
    meters = [ResourceMeter(pid) for pid in workers_of(service.process.pid)]
    for meter in meters:
        meter.start()
    with (
        attacking(service, attack) as attackers,
        httpx.Client(base_url=service.url, transport=transport, timeout=60) as client,
    ):
        answers: list[httpx.Response] = []
        while len(answers) < MIN_REQUESTS or (attackers.rounds < MIN_ROUNDS and len(answers) < MAX_REQUESTS):
            answers.append(send(client, next(requests)))
        assert client.get("/health/live").status_code == 200
    statuses = Counter(answer.status_code for answer in answers)
    assert attackers.rounds >= MIN_ROUNDS
    assert statuses[200] >= MIN_ANSWERED * len(answers), statuses
    assert statuses.keys() <= {200, 429}
    assert max(meter.extra_bytes() for meter in meters) < BODY_BYTES + INPUT_BYTES + OTHER_BYTES
