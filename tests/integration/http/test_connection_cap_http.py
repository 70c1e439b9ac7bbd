"""Hundreds of idle connections block neither health checks nor requests."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.http.raw_connection import RawConnection, get, post
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

MAX_CONNECTIONS = 20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    root: Path = tmp_path_factory.mktemp("models")
    write_version(root, "linear")
    with RunningService(root, max_connections=MAX_CONNECTIONS, header_timeout_s=600) as running:
        running.client.close()
        yield running


@pytest.mark.parametrize(
    "beginning",
    [b"", b"\r\n", b"POST /api", post(b"", length=5000) + b"x"],
    ids=["silent", "empty lines", "headers", "bodies"],
)
def test_connections_that_wait_for_their_clients_make_room(service: RunningService, beginning: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(5 * MAX_CONNECTIONS):
            stack.enter_context(RawConnection(service)).send(beginning)
        for request in (get("/health/live"), post(image_bytes())):
            connection = stack.enter_context(RawConnection(service))
            connection.send(request)
            assert connection.read_response()[0] == 200
    service.wait_for_line(event="too many connections", limit=MAX_CONNECTIONS)
