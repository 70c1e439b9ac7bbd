"""A service with low limits, for tests that send HTTP over a raw socket."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service_process import RunningService

MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = 100_000
HEADER_S, BODY_S, BYTES_PER_S, KEEP_ALIVE_S, REQUESTS = 0.5, 0.6, 20_000, 1, 5


@pytest.fixture(scope="module")
def limited(zoo: Path) -> Iterator[RunningService]:
    with RunningService(
        zoo,
        max_header_bytes=MAX_HEADER_BYTES,
        max_body_bytes=MAX_BODY_BYTES,
        header_timeout_s=HEADER_S,
        body_timeout_s=BODY_S,
        body_bytes_per_s=BYTES_PER_S,
        keep_alive_s=KEEP_ALIVE_S,
        keep_alive_requests=REQUESTS,
    ) as running:
        yield running
