"""Bodies in flight are bounded: a request that does not fit gets 503 before its body is read, and others continue."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.http.raw_connection import RawConnection
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

MAX_INFLIGHT_BYTES = 4096
OTHER_ADDRESS = "127.0.0.2"  # of another client, because each client has a share of the memory
BODY = image_bytes()
CLASSIFY = "/api/v1/models/linear/classify"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    root: Path = tmp_path_factory.mktemp("models")
    write_version(root, "linear")
    with RunningService(root, max_inflight_body_bytes=MAX_INFLIGHT_BYTES) as running:
        yield running


def head(length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {CLASSIFY} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def held_bytes(service: RunningService) -> float:
    return service.metric("convoy_body_bytes")


def test_a_request_past_the_bound_is_rejected_unread_until_others_are_answered(service: RunningService) -> None:
    with RawConnection(service) as slow, RawConnection(service, address=OTHER_ADDRESS) as other:
        slow.send(head(MAX_INFLIGHT_BYTES) + b"x" * (MAX_INFLIGHT_BYTES - 1))
        service.wait_until(lambda: held_bytes(service) == MAX_INFLIGHT_BYTES - 1)
        other.send(head(len(BODY)))  # without a body
        status, headers, body = other.read_response()
        assert (status, headers["retry-after"]) == (503, "1")
        assert b'"code":"memory_full"' in body
        assert service.metric("convoy_refused_total", reason="memory_full") == 1
        slow.send(b"x")
        assert slow.read_response()[0] == 400  # the body is not an image
        other.send(BODY)  # the body is discarded, and the connection stays usable
        other.send(head(len(BODY)) + BODY)
        assert other.read_response()[0] == 200
    assert held_bytes(service) == 0


def test_announced_bytes_that_do_not_arrive_keep_no_other_request_out(service: RunningService) -> None:
    with RawConnection(service) as slow, RawConnection(service, address=OTHER_ADDRESS) as other:
        slow.send(head(MAX_INFLIGHT_BYTES) + b"x")
        service.wait_until(lambda: held_bytes(service) == 1)
        other.send(head(len(BODY)) + BODY)
        assert other.read_response()[0] == 200
    service.wait_until(lambda: held_bytes(service) == 0)


def test_a_body_in_chunks_is_rejected_when_it_passes_the_bound(service: RunningService) -> None:
    with RawConnection(service) as slow, RawConnection(service, address=OTHER_ADDRESS) as other:
        slow.send(head(None) + chunk(b"x" * 3000))
        service.wait_until(lambda: held_bytes(service) == 3000)
        other.send(head(None) + chunk(b"x" * 1000))
        service.wait_until(lambda: held_bytes(service) == 4000)
        other.send(chunk(b"x" * 1000))
        assert other.read_response()[0] == 503
        service.wait_until(lambda: held_bytes(service) == 3000)
    service.wait_until(lambda: held_bytes(service) == 0)
