"""Slow, endless and invalid requests end with the correct status; slow but valid connections stay open."""

import contextlib
import time

import pytest

from tests.integration.http.conftest import BODY_S, BYTES_PER_S, HEADER_S, KEEP_ALIVE_S, MAX_HEADER_BYTES, REQUESTS
from tests.integration.http.raw_connection import TIMEOUT_S, RawConnection, check_error, get, post
from tests.reliability.process_resources import resource_usage
from tests.support.images import image_bytes
from tests.support.service_process import RunningService

BUNDLE = "/docs/swagger-ui-bundle.js"
BUNDLE_BYTES = 1_500_000  # more than the kernel buffers for a connection with small buffers
SLOW_READER_CHECK_S = 1.0  # interval in which the service checks for slow readers


def test_slow_headers_are_answered_with_408(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\n")
        for number in range(3):
            time.sleep(HEADER_S / 6)
            connection.send(f"x-{number}: 1\r\n".encode())
        check_error(connection.read_response(), 408, "slow_request")
        connection.ended_after_s()
    limited.wait_for_line(event="request", status=408, error="slow_request")
    assert limited.metric("convoy_requests_total", route="other", code="408") >= 1


def test_headers_in_pieces_are_read(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        for piece in (b"GET /heal", b"th/live HT", b"TP/1.1\r\nho", b"st: x\r\n", b"\r", b"\n"):
            connection.send(piece)
            time.sleep(0.01)
        assert connection.read_response()[0] == 200


def test_a_connection_without_a_request_is_closed_without_a_response(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        assert HEADER_S / 2 < connection.ended_after_s() < HEADER_S * 20
    with RawConnection(limited) as connection:
        connection.send(b"\r\n")  # an empty line, which some clients send between requests
        assert connection.ended_after_s() < TIMEOUT_S / 2


def test_an_idle_connection_is_closed_after_its_time(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(image_bytes()))
        assert connection.read_response()[0] == 200
        assert KEEP_ALIVE_S / 2 < connection.ended_after_s() < KEEP_ALIVE_S * 10


def test_a_slow_body_is_answered_with_408(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(b"", length=5000))
        started_s = time.monotonic()
        for _ in range(4):
            connection.send(b"x")
            time.sleep(BODY_S / 8)
        answer = connection.read_response()
        check_error(answer, 408, "slow_request")
        limited.wait_for_line(event="request", request_id=answer[1]["x-request-id"], error="slow_request")
        assert time.monotonic() - started_s < BODY_S * 20
        connection.ended_after_s()
    route = "/api/v1/models/{model}/classify"
    assert limited.metric("convoy_requests_total", route=route, code="408") >= 1


def test_a_slow_body_above_the_minimum_rate_is_accepted(limited: RunningService) -> None:
    body = image_bytes(150, 150)
    assert len(body) > BYTES_PER_S * BODY_S
    with RawConnection(limited) as connection:
        connection.send(post(b"", length=len(body)))
        step = len(body) // 10
        for at in range(0, len(body), step):
            time.sleep(BODY_S / 16)
            connection.send(body[at : at + step])
        assert connection.read_response()[0] == 200


def test_a_rejected_client_may_finish_its_body_and_send_another_request(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(b"", model="nobody", length=2000))
        time.sleep(0.05)
        connection.send(b"x" * 2000 + post(image_bytes()))
        assert connection.read_response()[0] == 404
        assert connection.read_response()[0] == 200


def test_a_body_that_does_not_arrive_after_its_answer_ends_the_connection(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n")
        assert connection.read_response()[0] == 200
        assert connection.ended_after_s() < BODY_S * 20


@pytest.mark.parametrize(
    "headers",
    [
        b"x: " + b"a" * MAX_HEADER_BYTES,
        b"a" * MAX_HEADER_BYTES + b": x",
        b"\r\n".join(b"x-%d: 1" % n for n in range(200)),
    ],
    ids=["a long value", "a long name", "many"],
)
@pytest.mark.parametrize("in_one_write", [True, False], ids=["at once", "in pieces"])
def test_too_large_headers_end_with_431(limited: RunningService, headers: bytes, in_one_write: bool) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\n")
        connection.send(headers if in_one_write else headers[:-1])
        time.sleep(0 if in_one_write else 0.02)
        connection.send((b"" if in_one_write else headers[-1:]) + b"\r\n\r\n")
        check_error(connection.read_response(), 431, "headers_too_large")


def test_headers_without_end_are_cut_off_early(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"GET /" + b"a" * MAX_HEADER_BYTES)
        check_error(connection.read_response(), 431, "headers_too_large")


def test_a_large_body_does_not_count_as_header(limited: RunningService) -> None:
    body = image_bytes(120, 120)
    assert len(body) > MAX_HEADER_BYTES
    with RawConnection(limited) as connection:
        connection.send(post(body))
        assert connection.read_response()[0] == 200


def test_chunks_and_trailers_without_end_are_cut_off(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
        assert connection.read_response()[0] == 200
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.send(b"x-trailer: " + b"y" * 1000 + b"\r\n")
        assert connection.statuses() in ([413], [])


def test_a_request_that_is_not_http_is_answered_with_400(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello, TLS?\r\n\r\n")
        check_error(connection.read_response(), 400, "bad_http")


def test_invalid_data_after_a_request_does_not_replace_its_response(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(image_bytes(), model="slow"))
        connection.send(b"nonsense\r\n\r\n")
        assert connection.statuses() in ([200], []), "the client would take a 400 for the response"


def test_a_connection_is_renewed_after_its_requests(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        for number in range(REQUESTS):
            connection.send(post(image_bytes()))
            status, headers, _ = connection.read_response()
            assert status == 200
            assert (headers.get("connection") == "close") == (number == REQUESTS - 1)
        connection.ended_after_s()


def test_pipelined_requests_are_answered_in_order(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(
            post(image_bytes(), "x-request-id: one", model="slow") + post(image_bytes(), "x-request-id: two")
        )
        assert [connection.read_response()[1]["x-request-id"] for _ in range(2)] == ["one", "two"]


@pytest.mark.parametrize("more", [[], ["connection: close"]], ids=["kept alive", "closed behind it"])
def test_a_client_that_reads_nothing_of_an_answer_is_disconnected(limited: RunningService, more: list[str]) -> None:
    pid, line_count = limited.process.pid, len(limited.lines)
    before = resource_usage(pid).descriptors
    with RawConnection(limited, small_buffers=True) as connection:
        connection.send(get(BUNDLE, *more))
        limited.wait_until(lambda: any(line["event"] == "client does not read" for line in limited.lines[line_count:]))
        limited.wait_until(lambda: resource_usage(pid).descriptors <= before)
        with pytest.raises(ConnectionResetError):
            connection.read_all()
    (line,) = (line for line in limited.lines[line_count:] if line["event"] == "client does not read")
    assert line["client"] == "127.0.0.1"
    assert line["bytes"] > BUNDLE_BYTES
    assert limited.client.get("/health/live").status_code == 200


@pytest.mark.parametrize("more", [[], ["connection: close"]], ids=["kept alive", "closed behind it"])
def test_a_client_that_reads_slowly_but_steadily_gets_the_whole_answer(
    limited: RunningService, more: list[str]
) -> None:
    line_count = len(limited.lines)
    with RawConnection(limited, small_buffers=True) as connection:
        connection.send(get(BUNDLE, *more))
        started_s, read_bytes = time.monotonic(), 0
        while (seconds := time.monotonic() - started_s) < 6 * SLOW_READER_CHECK_S:
            if read_bytes < 1.5 * BYTES_PER_S * seconds:
                read_bytes += connection.read(1000)
            time.sleep(0.005)
        assert seconds > BODY_S + 2 * SLOW_READER_CHECK_S
        assert read_bytes + connection.read_all() > BUNDLE_BYTES
    assert not [line for line in limited.lines[line_count:] if line["event"] == "client does not read"]
