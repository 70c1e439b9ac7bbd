"""While one address sends requests that are cheap to send but expensive to answer, other clients still get responses.

Timeouts are several seconds here. `python -m tests.reliability attacks` measures the figures that depend on the
machine.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import pytest

from tests.reliability.attacks.attack_requests import (
    CLASSIFY,
    EXPLAIN,
    EXPLAIN_LARGE,
    SMALL_IMAGE,
    client_requests,
    png_with_damaged_texts,
    png_with_many_exif_fields,
    png_with_many_profiles,
    png_with_many_texts,
    webp_with_a_large_canvas,
    write_models,
)
from tests.reliability.attacks.measure_attacks import send
from tests.support.service_process import RunningService

CONNECTIONS = 60
PAUSE_S = 0.5  # 60 connections send 20 to 40 KB per second in total, including headers
REQUESTS = 20
MIN_ANSWERED = 18
TIMEOUT_MS = 5000
CLIENT_ADDRESS = "127.0.0.2"


ATTACKS = {
    "canvas": (CLASSIFY, webp_with_a_large_canvas(), CONNECTIONS, {200, 429, 504}),
    "profiles": (CLASSIFY, png_with_many_profiles(), 2, {400}),
    "EXIF fields": (CLASSIFY, png_with_many_exif_fields(), CONNECTIONS, {200}),
    "texts": (CLASSIFY, png_with_many_texts(), CONNECTIONS, {200}),
    "damaged texts": (CLASSIFY, png_with_damaged_texts(), CONNECTIONS, {200}),
    "explanations": (EXPLAIN, SMALL_IMAGE, CONNECTIONS, {200, 429}),
    "explanations of a large input": (f"{EXPLAIN_LARGE}?method=input", SMALL_IMAGE, CONNECTIONS, {200, 429}),
}
"""Path, body, number of connections, and the expected statuses of the attackers' responses."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(1, marks=pytest.mark.slow, id="one worker"),
        pytest.param(2, marks=pytest.mark.long, id="two workers"),
    ],
)
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RunningService]:
    root = tmp_path_factory.mktemp("attacks") / "models"
    write_models(root)
    with RunningService(root, workers=request.param) as running:
        yield running


@contextmanager
def attack(service: RunningService, path: str, body: bytes, connections: int) -> Iterator[Counter[int]]:
    """Sends the body repeatedly over several connections within the context. Yields a counter of the response
    statuses."""
    stopped, statuses = threading.Event(), Counter[int]()

    def send_repeatedly() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while not stopped.wait(PAUSE_S):
                with suppress(httpx.HTTPError):
                    statuses[client.post(path, content=body).status_code] += 1

    with ThreadPoolExecutor(connections) as pool:
        for _ in range(connections):
            pool.submit(send_repeatedly)
        try:
            yield statuses
        finally:
            stopped.set()


@pytest.mark.parametrize(("path", "body", "connections", "attacker_statuses"), ATTACKS.values(), ids=ATTACKS.keys())
def test_other_addresses_are_answered_during_an_attack(
    service: RunningService, path: str, body: bytes, connections: int, attacker_statuses: set[int]
) -> None:
    requests = itertools.cycle(client_requests())
    transport = httpx.HTTPTransport(local_address=CLIENT_ADDRESS)
    headers = {"x-request-timeout-ms": str(TIMEOUT_MS)}
    with (
        attack(service, path, body, connections) as attackers,
        httpx.Client(base_url=service.url, transport=transport, timeout=60, headers=headers) as client,
    ):
        service.wait_until(lambda: bool(attackers))
        statuses = Counter(send(client, next(requests)).status_code for _ in range(REQUESTS))
    assert statuses[200] >= MIN_ANSWERED, (statuses, attackers)
    assert statuses.keys() <= {200, 429}
    assert attackers.keys() <= attacker_statuses
