"""While one address sends requests that are cheap to send but expensive to answer, others still get responses.

Timeouts are several seconds here. `make bench-overload` measures figures that depend on the machine.
"""

import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.images import encode
from tests.support.model_versions import write_version
from tests.support.png_writer import END, chunk, header
from tests.support.service_process import RunningService

CONNECTIONS = 60
PAUSE_S = 0.5  # 60 connections send 20 to 40 KB per second in total, including headers
REQUESTS = 20
MIN_ANSWERED = 18
TIMEOUT_MS = 5000
CLIENT_ADDRESS = "127.0.0.2"
CLASSIFY = "/api/v1/models/linear/classify"


def webp_with_a_large_canvas(side: int = 3535) -> bytes:
    """Returns a file of about 100 bytes whose header states 12.5 megapixels; only a corner has content."""
    frames = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (10, 200)]
    file = encode(np.asarray(frames[0])[..., np.newaxis], "WEBP", save_all=True, append_images=frames[1:])
    return file[:24] + (side - 1).to_bytes(3, "little") * 2 + file[30:]


def png_with_many_profiles(count: int = 60) -> bytes:
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1_000_000)))
    return header(5, 5) + profile * count + chunk(b"IDAT", zlib.compress(bytes(30))) + END


ATTACKS = {
    "canvas": (webp_with_a_large_canvas(), CONNECTIONS, {200, 429, 504}),
    "profiles": (png_with_many_profiles(), 2, {400}),
}
"""Bodies, number of connections, and the expected statuses of the attackers' responses."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(1, marks=pytest.mark.slow, id="one worker"),
        pytest.param(2, marks=pytest.mark.long, id="two workers"),
    ],
)
def service(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RunningService]:
    root = tmp_path_factory.mktemp("attacks") / "models"
    write_version(root, "linear", 1)
    with RunningService(root, workers=request.param) as running:
        yield running


@contextmanager
def attack(service: RunningService, body: bytes, connections: int) -> Iterator[Counter[int]]:
    """Sends the body repeatedly over several connections within the context. Yields the statuses of the responses."""
    stopped, statuses = threading.Event(), Counter[int]()

    def send_repeatedly() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while not stopped.wait(PAUSE_S):
                with suppress(httpx.HTTPError):
                    statuses[client.post(CLASSIFY, content=body).status_code] += 1

    with ThreadPoolExecutor(connections) as pool:
        for _ in range(connections):
            pool.submit(send_repeatedly)
        try:
            yield statuses
        finally:
            stopped.set()


@pytest.mark.parametrize(("body", "connections", "attacker_statuses"), ATTACKS.values(), ids=ATTACKS.keys())
def test_another_address_gets_its_answers(
    service: RunningService, body: bytes, connections: int, attacker_statuses: set[int]
) -> None:
    jpeg = encode(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8), "JPEG")
    transport = httpx.HTTPTransport(local_address=CLIENT_ADDRESS)
    headers = {"x-request-timeout-ms": str(TIMEOUT_MS)}
    with (
        attack(service, body, connections) as attackers,
        httpx.Client(base_url=service.url, transport=transport, timeout=60, headers=headers) as client,
    ):
        service.wait_until(lambda: bool(attackers))
        statuses = Counter(client.post(CLASSIFY, content=jpeg).status_code for _ in range(REQUESTS))
    assert statuses[200] >= MIN_ANSWERED, (statuses, attackers)
    assert statuses.keys() <= {200, 429}
    assert attackers.keys() <= attacker_statuses
