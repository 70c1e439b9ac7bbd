"""A response that is sent before the body was read reaches the client, because the connection is not reset."""

import contextlib

import pytest

from tests.integration.http.conftest import MAX_BODY_BYTES
from tests.integration.http.raw_connection import RawConnection, post
from tests.reliability.process_resources import resource_usage
from tests.support.service_process import RunningService

LARGE = 8_000_000  # far more than sockets buffer
CLOSE = "connection: close"


def send_all_then_read(connection: RawConnection, request: bytes) -> tuple[int, str]:
    """Sends the whole body before reading the response, as most clients do."""
    connection.send(request)
    status, headers, _ = connection.read_response()
    assert connection.read_all() == 0, "a regular end, and no second response"
    return status, headers["connection"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post(bytes(LARGE)), 413),
        (post(bytes(LARGE), CLOSE, model="nobody"), 404),
        (post(bytes(MAX_BODY_BYTES), CLOSE, model="nobody"), 404),
        (post(bytes(LARGE), CLOSE).replace(b"linear/classify", b"linear"), 405),
        (post(bytes(LARGE), CLOSE).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"linear/classify", b"linear"), 405),
        (post(bytes(LARGE), CLOSE).replace(b"/classify", b"/classify?top_k=0"), 422),
        (post(b"zz\r\n" + bytes(LARGE), "transfer-encoding: chunked").replace(b"content-length", b"x-length"), 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x: " + bytes(b"y" * LARGE) + b"\r\n\r\n", 431),
        (b"nonsense" * (LARGE // 8), 400),
    ],
    ids=[
        "413",
        "404",
        "404 to a body that would be taken",
        "405",
        "405 in HTTP/1.0",
        "422",
        "bad chunk",
        "431",
        "no HTTP",
    ],
)
def test_an_answer_reaches_a_client_that_is_still_sending(
    limited: RunningService, request_bytes: bytes, status: int
) -> None:
    with RawConnection(limited) as connection:
        assert send_all_then_read(connection, request_bytes) == (status, "close")


@pytest.mark.parametrize(
    ("request_bytes", "is_kept"),
    [
        (post(b"", model="nobody", length=MAX_BODY_BYTES), True),
        (post(b"", model="nobody", length=MAX_BODY_BYTES + 1), False),
        (post(b"", "transfer-encoding: chunked", model="nobody").replace(b"content-length", b"x-length"), False),
        (
            post(b"1\r\nx\r\n0\r\n\r\n", "transfer-encoding: chunked", model="nobody").replace(b"content-length", b"x"),
            True,
        ),
    ],
    ids=["a body that may be", "one too large", "chunks without end", "chunks with an end"],
)
def test_an_answer_keeps_the_connection_only_if_the_rest_of_the_body_will_be_read(
    limited: RunningService, request_bytes: bytes, is_kept: bool
) -> None:
    with RawConnection(limited) as connection:
        connection.send(request_bytes)
        status, headers, _ = connection.read_response()
        assert (status, "connection" not in headers) == (404, is_kept)


def test_an_early_response_is_the_only_response(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n" + bytes(LARGE))
        assert connection.read_response()[0] == 200
        assert connection.read_all() == 0


def test_discarded_bytes_use_no_memory_and_connections_are_closed(limited: RunningService) -> None:
    pid = limited.process.pid
    before = resource_usage(pid)
    connections = [RawConnection(limited) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for connection in connections:
            stack.enter_context(connection)
            connection.send(post(bytes(LARGE)))
        assert resource_usage(pid).resident_bytes - before.resident_bytes < 2 * LARGE
    limited.wait_until(lambda: resource_usage(pid).descriptors <= before.descriptors)
