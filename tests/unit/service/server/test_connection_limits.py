"""Limits of slow connections, with simulated clients. test_connection_limits_http.py uses real clients."""

import asyncio
import socket
from collections.abc import Iterator
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.server.connection_cap import EVICTION_ORDER, UNREAD
from service.server.connection_limits import LimitedProtocol
from service.server.limits import ConnectionLimits
from service.server.request_timer import BODY, HEAD, IDLE
from service.settings import Settings
from tests.unit.service.fakes import FullTransport, ManualLoop

TIMEOUT_S = 20.0
ENDLESS_S = 1_000_000.0


async def unused_app(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that is never called."""


@pytest.fixture
def transport() -> Iterator[FullTransport]:
    with socket.socket() as sock:
        yield FullTransport(sock, 100_000)


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


def connect(transport: FullTransport, loop: ManualLoop, is_for_health_checks: bool = False) -> LimitedProtocol:
    limits = ConnectionLimits.from_settings(Settings(header_timeout_s=ENDLESS_S, body_timeout_s=TIMEOUT_S))
    config = uvicorn.Config(unused_app, ws="none", interface="asgi3", log_config=None)
    protocol = LimitedProtocol(
        limits,
        on_rejected=lambda *rejection: None,
        on_closed=lambda: None,
        is_for_health_checks=is_for_health_checks,
        config=config,
        server_state=ServerState(),
        app_state={},
        _loop=loop,
    )
    protocol.connection_made(cast("asyncio.Transport", transport))
    return protocol


@pytest.fixture
def protocol(transport: FullTransport, loop: ManualLoop) -> LimitedProtocol:
    """Returns a new connection."""
    return connect(transport, loop)


def test_bytes_read_in_time_do_not_reset_the_connection(
    protocol: LimitedProtocol, transport: FullTransport, loop: ManualLoop
) -> None:
    protocol.pause_writing()
    loop.run_for(TIMEOUT_S - 1)
    protocol.resume_writing()
    loop.run_for(TIMEOUT_S)
    assert not transport.aborted


def test_remaining_bytes_of_a_closing_connection_are_watched(
    protocol: LimitedProtocol, transport: FullTransport, loop: ManualLoop
) -> None:
    protocol.pause_writing()
    protocol.transport.close()
    transport.waiting = 10
    protocol.resume_writing()
    loop.run_for(TIMEOUT_S + 100_000)
    assert transport.aborted


def test_a_lost_connection_is_no_longer_watched(
    protocol: LimitedProtocol, transport: FullTransport, loop: ManualLoop
) -> None:
    protocol.pause_writing()
    transport.abort()
    protocol.connection_lost(None)
    assert not loop.timers
    protocol.transport.write(b"x")
    loop.run_for(1)
    assert transport.written == []


HEADER_TIMEOUT_S = 10.0
REQUEST = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("beginning", [[], [b"\r\n"] * 9, [b"GET / HTTP/1.1\r\n", b"a: b\r\n"]])
def test_the_header_timeout_runs_until_the_first_request_has_arrived(
    transport: FullTransport, loop: ManualLoop, beginning: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 connections that sent empty lines used to get the 75 s of connections between requests."""
    monkeypatch.setattr(f"{__name__}.ENDLESS_S", HEADER_TIMEOUT_S)
    protocol = connect(transport, loop)
    for data in beginning:
        protocol.data_received(data)
        loop.run_for(1)
    loop.run_for(HEADER_TIMEOUT_S - len(beginning) - 0.5)
    assert not transport.closed
    assert not protocol._lingering.is_active
    loop.run_for(1)
    assert transport.closed or protocol._lingering.is_active


@pytest.mark.parametrize(
    ("path", "is_answered"),
    [
        (b"/health/live", True),
        (b"/v2/health/ready?x=1", True),
        (b"/docs", False),
        (b"/docs?x=/health/", False),
        (b"/docs?x=/health/live", False),
        (b"/api/v1/models/health/classify", False),
        (b"/x/health/y", False),
        (b"/prefix/health/ready", True),
    ],
)
def test_a_connection_for_health_checks_answers_nothing_else(
    transport: FullTransport, loop: ManualLoop, path: bytes, is_answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(LimitedProtocol, "_start_asgi_task", lambda self, cycle, app: started.append(cycle))
    protocol = connect(transport, loop, is_for_health_checks=True)
    protocol.data_received(REQUEST % path)
    loop.run_for(0)
    assert bool(started) == is_answered
    written = b"".join(transport.written)
    assert (b"503 Service Unavailable" in written and b"too_many_connections" in written) == (not is_answered)


def test_a_connection_waits_for_its_client_except_during_processing(
    transport: FullTransport, loop: ManualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LimitedProtocol, "_start_asgi_task", lambda self, cycle, app: None)
    protocol = connect(transport, loop)
    ranks = []
    for data in (b"", b"POST / HTTP/1.1\r\n", b"host: x\r\ncontent-length: 2\r\n\r\n", b"ab"):
        if data:
            protocol.data_received(data)
        wait = protocol.client_wait()
        ranks.append(None if wait is None else EVICTION_ORDER[wait.rank])
    assert ranks == [IDLE, HEAD, BODY, None]
    protocol.pause_writing()
    unread = protocol.client_wait()
    assert unread is not None
    assert EVICTION_ORDER[unread.rank] == UNREAD
    protocol.evict()
    assert transport.aborted
    assert protocol.client_wait() is None
