"""A connection whose client reads slowly, without a client. With real ones: test_connection_limits_http.py."""

import asyncio
import socket
from collections.abc import Iterator
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.server.connection_limits import LimitedProtocol
from service.server.limits import ConnectionLimits
from service.settings import Settings
from tests.unit.service.fakes import FullTransport, ManualLoop

TIMEOUT_S = 20.0
ENDLESS_S = 1_000_000.0


async def unused_app(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that is never asked."""


@pytest.fixture
def transport() -> Iterator[FullTransport]:
    with socket.socket() as sock:
        yield FullTransport(sock, 100_000)


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def protocol(transport: FullTransport, loop: ManualLoop) -> LimitedProtocol:
    """A connection that was just made."""
    limits = ConnectionLimits.from_settings(Settings(header_timeout_s=ENDLESS_S, body_timeout_s=TIMEOUT_S))
    config = uvicorn.Config(unused_app, ws="none", interface="asgi3", log_config=None)
    protocol = LimitedProtocol(
        limits,
        on_rejected=lambda status: None,
        on_closed=lambda: None,
        config=config,
        server_state=ServerState(),
        app_state={},
        _loop=loop,
    )
    protocol.connection_made(cast("asyncio.Transport", transport))
    return protocol


def test_bytes_that_are_taken_in_time_cost_nothing(
    protocol: LimitedProtocol, transport: FullTransport, loop: ManualLoop
) -> None:
    protocol.pause_writing()
    loop.run_for(TIMEOUT_S - 1)
    protocol.resume_writing()
    loop.run_for(TIMEOUT_S)
    assert not transport.aborted


def test_what_is_left_when_a_connection_closes_is_watched_to_the_last_byte(
    protocol: LimitedProtocol, transport: FullTransport, loop: ManualLoop
) -> None:
    protocol.pause_writing()
    protocol.transport.close()
    transport.waiting = 10
    protocol.resume_writing()
    loop.run_for(TIMEOUT_S + 100_000)
    assert transport.aborted


def test_a_connection_that_is_gone_is_watched_no_more(
    protocol: LimitedProtocol, transport: FullTransport, loop: ManualLoop
) -> None:
    protocol.pause_writing()
    transport.abort()
    protocol.connection_lost(None)
    assert not loop.timers
    protocol.transport.write(b"x")
    loop.run_for(1)
    assert transport.written == []
