"""Connections that are slow, endless, crowded or no HTTP are ended with the right answer; patient ones are not."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tests.reliability.process_resources import resource_usage
from tests.support.images import image_bytes
from tests.support.service_process import RunningService

MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = 100_000
HEADER_S, BODY_S, BYTES_PER_S, KEEP_ALIVE_S, REQUESTS = 0.5, 0.6, 20_000, 1, 5
TIMEOUT_S = 30
BUNDLE = "/docs/swagger-ui-bundle.js"
BUNDLE_BYTES = 1_500_000  # more than the kernel takes at once over a narrow connection
SLOW_READER_CHECK_S = 1.0  # how often the service looks at who is slow


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


class RawConnection:
    """A bare connection."""

    def __init__(self, service: RunningService, small_buffers: bool = False) -> None:
        """One that is narrow takes little before it is read."""
        parsed = urlparse(service.url)
        self._socket = socket.socket()
        self._socket.settimeout(TIMEOUT_S)
        if small_buffers:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        self._socket.connect((parsed.hostname, parsed.port))
        self._buffer = b""

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read_response(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. Raises ConnectionError when the connection ends before."""
        head = self._until(b"\r\n\r\n")
        status = int(head.split()[1])
        headers = dict(re.findall(r"^([^:\r\n]+): (.*)\r$", head.decode(), re.MULTILINE))
        length = int(headers["content-length"])
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return status, headers, body

    def statuses(self) -> list[int]:
        """Of all answers until the connection ends."""
        status_codes = []
        with contextlib.suppress(ConnectionError):
            while True:
                status_codes.append(self.read_response()[0])
        return status_codes

    def ended_after_s(self) -> float:
        """Seconds until the other side has closed; nothing must come before."""
        started_s = time.monotonic()
        with pytest.raises(ConnectionError):
            self._until(b"never")
        assert self._buffer == b""
        return time.monotonic() - started_s

    def read(self, max_bytes: int) -> int:
        """How many bytes came, up to so many; 0 at an orderly end. Raises ConnectionResetError."""
        return len(self._socket.recv(max_bytes))

    def read_all(self) -> int:
        """How many bytes come until the orderly end. Raises ConnectionResetError."""
        return sum(iter(lambda: self.read(65536), 0))

    def _until(self, delimiter: bytes) -> bytes:
        while delimiter not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(delimiter)
        return head + delimiter

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("it was closed")
        self._buffer += data


def post(body: bytes, *more: str, model: str = "linear", length: int | None = None) -> bytes:
    lines = [f"POST /api/v1/models/{model}/classify HTTP/1.1", "host: x", *more]
    length = len(body) if length is None else length
    return "\r\n".join([*lines, f"content-length: {length}", "\r\n"]).encode() + body


def get(path: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *more, "\r\n"]).encode()


def check_error(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    assert answer[0] == status, answer
    assert json.loads(answer[2])["error"]["code"] == code
    assert answer[1]["connection"] == "close"


def test_headers_that_come_too_slowly_end_with_408(limited: RunningService) -> None:
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


def test_a_connection_that_asks_nothing_is_closed_without_a_word(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        assert HEADER_S / 2 < connection.ended_after_s() < HEADER_S * 20
    with RawConnection(limited) as connection:
        connection.send(b"\r\n")  # which some clients send between requests
        assert connection.ended_after_s() < TIMEOUT_S / 2


def test_an_idle_connection_is_closed_after_its_time(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(image_bytes()))
        assert connection.read_response()[0] == 200
        assert KEEP_ALIVE_S / 2 < connection.ended_after_s() < KEEP_ALIVE_S * 10


def test_a_body_that_comes_too_slowly_ends_with_408(limited: RunningService) -> None:
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


def test_a_slow_body_that_brings_enough_is_waited_for(limited: RunningService) -> None:
    body = image_bytes(150, 150)
    assert len(body) > BYTES_PER_S * BODY_S
    with RawConnection(limited) as connection:
        connection.send(post(b"", length=len(body)))
        step = len(body) // 10
        for at in range(0, len(body), step):
            time.sleep(BODY_S / 16)
            connection.send(body[at : at + step])
        assert connection.read_response()[0] == 200


def test_what_was_refused_may_send_its_body_to_the_end_and_ask_again(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(b"", model="nobody", length=2000))
        time.sleep(0.05)
        connection.send(b"x" * 2000 + post(image_bytes()))
        assert connection.read_response()[0] == 404
        assert connection.read_response()[0] == 200


def test_a_body_that_nobody_waits_for_any_more_is_cut_off(limited: RunningService) -> None:
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


def test_a_large_body_behind_small_headers_is_no_large_header(limited: RunningService) -> None:
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


def test_what_is_no_http_ends_with_400(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello, TLS?\r\n\r\n")
        check_error(connection.read_response(), 400, "bad_http")


HIDDEN = get("/health/live")
LENGTH, CHUNKED = f"content-length: {len(HIDDEN)}", "transfer-encoding: chunked"
UPGRADE = ["connection: upgrade", "upgrade: websocket"]
LAST = b"0\r\n\r\n"
CHUNKS = {
    "a chunk of letters": b"zz\r\n",
    "a negative chunk": b"-1\r\nx\r\n0\r\n\r\n",
    "a chunk with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a chunk in C's notation": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk past 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a chunk shorter than it says": b"6\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than it says": b"3\r\nhello\r\n0\r\n\r\n",
    "a chunk with a bare line feed": b"5\nhello\n0\n\n",
    "an extension with a bare line feed": b"5;a\nhello\r\n0\r\n\r\n",
    "a space behind a chunk's size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a length in a trailer": b"0\r\ncontent-length: 5\r\n\r\n",
}
AMBIGUOUS = {
    "two lengths that differ": (["content-length: 0", LENGTH], b""),
    "two equal lengths": ([LENGTH, LENGTH], b""),
    "a list of lengths": ([f"{LENGTH}, {len(HIDDEN)}"], b""),
    "a length with a sign": ([LENGTH.replace(": ", ": +")], b""),
    "a length and chunks": ([LENGTH, CHUNKED], LAST),
    "chunks and a length": ([CHUNKED, LENGTH], LAST),
    "chunks in chunks": ([f"{CHUNKED}, chunked"], LAST),
    "chunks, twice": ([CHUNKED, CHUNKED], LAST),
    "another coding, then chunks": (["transfer-encoding: gzip, chunked"], LAST),
    "no coding, then chunks": (["transfer-encoding: identity", CHUNKED], LAST),
    "nothing, then chunks": (["transfer-encoding: , chunked"], LAST),
    "chunks, then another coding": ([f"{CHUNKED}, identity"], LAST),
    "no chunks": (["transfer-encoding: xchunked"], LAST),
    "a space before the colon": (["transfer-encoding : chunked"], LAST),
    "a folded line": (["x: y", f" {CHUNKED}"], LAST),
    "a bare carriage return": ([f"x: y\r{CHUNKED}"], LAST),
    "a body in another protocol": ([*UPGRADE, LENGTH], b""),
    "chunks in another protocol": ([*UPGRADE, CHUNKED], LAST),
    **{name: ([CHUNKED], chunks) for name, chunks in CHUNKS.items()},
}
"""Headers and body that one reader ends before HIDDEN and another behind it."""


def head(*lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"POST /api/v1/models/linear/classify HTTP/{version}", "host: x", *lines, "\r\n"]).encode()


@pytest.mark.parametrize(("lines", "body"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
@pytest.mark.parametrize("in_one_write", [True, False], ids=["at once", "in pieces"])
def test_a_request_whose_end_is_ambiguous_hides_no_other(
    limited: RunningService, lines: list[str], body: bytes, in_one_write: bool
) -> None:
    check_only_one_response(limited, head(*lines), body + HIDDEN, in_one_write)


@pytest.mark.parametrize("in_one_write", [True, False], ids=["at once", "in pieces"])
def test_chunks_from_before_there_were_any_hide_no_request(limited: RunningService, in_one_write: bool) -> None:
    check_only_one_response(
        limited, head(CHUNKED, "connection: keep-alive", version="1.0"), LAST + HIDDEN, in_one_write
    )


def check_only_one_response(service: RunningService, first: bytes, rest: bytes, in_one_write: bool) -> None:
    with RawConnection(service) as connection:
        connection.send(first + rest if in_one_write else first)
        if not in_one_write:
            time.sleep(0.02)
            with contextlib.suppress(ConnectionError):  # it may have ended already
                connection.send(rest)
        check_error(connection.read_response(), 400, "bad_http")
        assert connection.statuses() == []


def test_chunks_and_their_extensions_are_read(limited: RunningService) -> None:
    body = image_bytes()
    with RawConnection(limited) as connection:
        for coding in (CHUNKED, "Transfer-Encoding: CHUNKED"):
            connection.send(head(coding) + b"1;a=b\r\n%b\r\n%x\r\n%b\r\n" % (body[:1], len(body) - 1, body[1:]) + LAST)
            assert connection.read_response()[0] == 200
        connection.send(HIDDEN)
        assert connection.read_response()[0] == 200


def test_a_trailer_is_no_header(limited: RunningService) -> None:
    body = image_bytes()
    with RawConnection(limited) as connection:
        connection.send(head(CHUNKED) + b"%x\r\n%b\r\n0\r\nx-request-id: trailer\r\n\r\n" % (len(body), body))
        status, headers, _ = connection.read_response()
        assert status == 200
        assert headers["x-request-id"] != "trailer"


def test_who_asks_for_another_protocol_is_answered_in_this_one_and_then_the_connection_ends(
    limited: RunningService,
) -> None:
    with RawConnection(limited) as connection:
        connection.send(get("/health/live", "connection: upgrade, http2-settings", "upgrade: h2c") + HIDDEN[:9])
        status, headers, _ = connection.read_response()
        assert (status, headers["connection"]) == (200, "close")
        with contextlib.suppress(ConnectionError):
            connection.send(HIDDEN)
        assert connection.statuses() == []


def test_an_answer_that_is_due_comes_before_that_to_a_body_that_is_no_http(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(image_bytes(), model="slow") + head(CHUNKED) + b"zz\r\n" + HIDDEN)
        assert connection.read_response()[0] == 200
        check_error(connection.read_response(), 400, "bad_http")
        assert connection.statuses() == []


def test_an_answer_that_is_due_comes_before_the_end(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(image_bytes(), model="slow"))
        connection.send(b"nonsense\r\n\r\n")
        assert connection.statuses() in ([200], []), "a 400 would be taken for the answer"


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
def test_who_takes_nothing_of_an_answer_is_cut_off(limited: RunningService, more: list[str]) -> None:
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
def test_who_takes_an_answer_slowly_but_steadily_gets_all_of_it(limited: RunningService, more: list[str]) -> None:
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
