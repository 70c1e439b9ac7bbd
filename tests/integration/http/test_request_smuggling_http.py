"""A request with an ambiguous end cannot hide a second request: it is rejected, and the connection is closed."""

import contextlib
import time

import pytest

from tests.integration.http.raw_connection import RawConnection, check_error, get, post
from tests.support.images import image_bytes
from tests.support.service_process import RunningService

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
    "two lengths in another protocol": ([*UPGRADE, "content-length: 0", LENGTH], b""),
    "a length and chunks in another protocol": ([*UPGRADE, LENGTH, CHUNKED], LAST),
    "another coding in another protocol": ([*UPGRADE, "transfer-encoding: gzip, chunked"], LAST),
    **{name: ([CHUNKED], chunks) for name, chunks in CHUNKS.items()},
}
"""Headers and bodies that one parser ends before HIDDEN and another parser after it."""


def head(*lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"POST /api/v1/models/linear/classify HTTP/{version}", "host: x", *lines, "\r\n"]).encode()


@pytest.mark.parametrize(("lines", "body"), AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
@pytest.mark.parametrize("in_one_write", [True, False], ids=["at once", "in pieces"])
def test_a_request_whose_end_is_ambiguous_hides_no_other(
    limited: RunningService, lines: list[str], body: bytes, in_one_write: bool
) -> None:
    check_only_one_response(limited, head(*lines), body + HIDDEN, in_one_write)


@pytest.mark.parametrize("in_one_write", [True, False], ids=["at once", "in pieces"])
def test_chunks_in_http_1_0_hide_no_request(limited: RunningService, in_one_write: bool) -> None:
    check_only_one_response(
        limited, head(CHUNKED, "connection: keep-alive", version="1.0"), LAST + HIDDEN, in_one_write
    )


def check_only_one_response(service: RunningService, first: bytes, rest: bytes, in_one_write: bool) -> None:
    with RawConnection(service) as connection:
        connection.send(first + rest if in_one_write else first)
        if not in_one_write:
            time.sleep(0.02)
            with contextlib.suppress(ConnectionError):  # the connection may already be closed
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


def test_a_trailer_is_not_a_header(limited: RunningService) -> None:
    body = image_bytes()
    with RawConnection(limited) as connection:
        connection.send(head(CHUNKED) + b"%x\r\n%b\r\n0\r\nx-request-id: trailer\r\n\r\n" % (len(body), body))
        status, headers, _ = connection.read_response()
        assert status == 200
        assert headers["x-request-id"] != "trailer"


def test_a_request_for_another_protocol_is_answered_in_http_and_ends_the_connection(
    limited: RunningService,
) -> None:
    with RawConnection(limited) as connection:
        connection.send(get("/health/live", "connection: upgrade, http2-settings", "upgrade: h2c") + HIDDEN[:9])
        status, headers, _ = connection.read_response()
        assert (status, headers["connection"]) == (200, "close")
        with contextlib.suppress(ConnectionError):
            connection.send(HIDDEN)
        assert connection.statuses() == []


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "h2c, TLS/1.0"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("in_one_write", [True, False], ids=["at once", "in pieces"])
def test_a_body_behind_upgrade_is_read_by_its_own_framing_and_hides_no_request(
    limited: RunningService, protocol: str, is_chunked: bool, in_one_write: bool
) -> None:
    image = image_bytes()
    body = b"%x\r\n%b\r\n%b" % (len(image), image, LAST) if is_chunked else image
    framing = CHUNKED if is_chunked else f"content-length: {len(image)}"
    upgrade = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAEAAEAAAAIAAAAB"]
    with RawConnection(limited) as connection:
        for piece in (
            [head(*upgrade, framing), body[:9], body[9:] + HIDDEN]
            if not in_one_write
            else [head(*upgrade, framing) + body + HIDDEN]
        ):
            connection.send(piece)
            time.sleep(0 if in_one_write else 0.02)
        status, headers, reply = connection.read_response()
        assert (status, headers["connection"]) == (200, "close"), reply
        assert connection.statuses() == []
    assert not [line for line in limited.lines if "WebSocket" in str(line) or "upgrade" in str(line)]


def test_a_body_behind_upgrade_is_an_image_even_if_it_looks_like_a_request(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(head(*UPGRADE, LENGTH) + HIDDEN + HIDDEN)
        check_error(connection.read_response(), 400, "bad_image")
        assert connection.statuses() == []


@pytest.mark.parametrize("target", ["x:80", "/health/live"])
def test_connect_is_rejected(limited: RunningService, target: str) -> None:
    with RawConnection(limited) as connection:
        connection.send(f"CONNECT {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode() + HIDDEN)
        check_error(connection.read_response(), 400, "bad_http")
        assert connection.statuses() == []


def test_a_pending_response_precedes_the_error_for_an_invalid_body(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(post(image_bytes(), model="slow") + head(CHUNKED) + b"zz\r\n" + HIDDEN)
        assert connection.read_response()[0] == 200
        check_error(connection.read_response(), 400, "bad_http")
        assert connection.statuses() == []


UNCLEAR_HOSTS = {"no host": [], "two hosts": ["host: x", "host: y"], "one host, twice": ["host: x", "Host: x"]}


@pytest.mark.parametrize("lines", UNCLEAR_HOSTS.values(), ids=UNCLEAR_HOSTS.keys())
@pytest.mark.parametrize("upgrade", [[], UPGRADE], ids=["", "in another protocol"])
def test_a_request_needs_exactly_one_host(limited: RunningService, lines: list[str], upgrade: list[str]) -> None:
    request = "\r\n".join(["GET /health/live HTTP/1.1", *lines, *upgrade, "\r\n"]).encode()
    with RawConnection(limited) as connection:
        connection.send(request + HIDDEN)
        check_error(connection.read_response(), 400, "bad_http")
        assert connection.statuses() == []


@pytest.mark.parametrize("version", ["0.9", "2.0", "2.1", "3.0"])
def test_another_version_of_http_is_named_as_the_cause(limited: RunningService, version: str) -> None:
    with RawConnection(limited) as connection:
        connection.send(f"GET /health/live HTTP/{version}\r\nhost: x\r\n\r\n".encode() + HIDDEN)
        check_error(connection.read_response(), 505, "unsupported_http_version")
        assert connection.statuses() == []


@pytest.mark.parametrize("upgrade", [[], UPGRADE], ids=["", "in another protocol"])
def test_a_later_minor_version_is_answered_as_http_1_1(limited: RunningService, upgrade: list[str]) -> None:
    image = image_bytes()
    body = b"%x\r\n%b\r\n" % (len(image), image) + LAST
    request = head(CHUNKED, *upgrade, version="1.2") + body
    with RawConnection(limited) as connection:
        connection.send(request if upgrade else request + head(CHUNKED, "connection: close", version="1.2") + body)
        assert connection.statuses() == ([200] if upgrade else [200, 200])


def test_a_later_minor_version_needs_a_host(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"GET /health/live HTTP/1.2\r\n\r\n" + HIDDEN)
        check_error(connection.read_response(), 400, "bad_http")
        assert connection.statuses() == []


def test_http_1_0_needs_no_host(limited: RunningService) -> None:
    with RawConnection(limited) as connection:
        connection.send(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert connection.statuses() == [200]
