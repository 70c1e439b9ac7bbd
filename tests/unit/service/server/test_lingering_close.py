"""A connection that is closed while its client sends stays open for reading, within limits of time and bytes."""

import asyncio
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from service.server import lingering_close
from service.server.lingering_close import MAX_DISCARDED_BYTES, MAX_LINGER_S, MAX_SILENCE_S, LingeringClose
from service.server.write_coalescing import CoalescingTransport
from tests.unit.service.fakes import FullTransport, ManualLoop


@pytest.fixture
def transport() -> Iterator[FullTransport]:
    with socket.socket() as sock:
        yield FullTransport(sock, 0)


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def lingering(transport: FullTransport, loop: ManualLoop) -> LingeringClose:
    return LingeringClose(cast("asyncio.Transport", transport), cast("asyncio.AbstractEventLoop", loop))


def test_a_silent_client_is_waited_for_a_short_time(
    lingering: LingeringClose, transport: FullTransport, loop: ManualLoop
) -> None:
    lingering.start()
    assert transport.is_half_closed
    loop.run_for(MAX_SILENCE_S - 0.1)
    assert not transport.closed
    loop.run_for(0.1)
    assert transport.closed


def test_a_client_that_sends_on_is_waited_for_longer_but_not_forever(
    lingering: LingeringClose, transport: FullTransport, loop: ManualLoop
) -> None:
    lingering.start()
    step_s = MAX_SILENCE_S - 1
    while loop.now_s + step_s < MAX_LINGER_S:
        loop.run_for(step_s)
        lingering.discard(1000)
    assert not transport.closed
    loop.run_for(step_s)
    assert transport.closed
    assert not loop.timers


def test_discarded_bytes_are_limited(
    lingering: LingeringClose, transport: FullTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_DISCARDED_BYTES > 200_000_000, "which a client may send before it reads an answer"
    monkeypatch.setattr(lingering_close, "MAX_DISCARDED_BYTES", 5000)
    lingering.start()
    for _ in range(5):
        lingering.discard(1000)
        assert not transport.closed
    lingering.discard(1)
    assert transport.closed


def test_a_connection_that_is_lost_is_not_waited_for(
    lingering: LingeringClose, transport: FullTransport, loop: ManualLoop
) -> None:
    lingering.start()
    lingering.stop()
    assert not loop.timers
    assert not transport.closed


def test_the_last_answer_is_written_before_the_sending_side_ends_and_nothing_after_it(
    lingering: LingeringClose, transport: FullTransport, loop: ManualLoop
) -> None:
    coalescing = CoalescingTransport(
        cast("asyncio.Transport", transport),
        cast("asyncio.AbstractEventLoop", loop),
        on_unsent=lambda: None,
        lingering=lingering,
        may_send_more=lambda: not transport.is_half_closed,
    )
    coalescing.write(b"answer")
    coalescing.close()
    coalescing.write(b"too late")
    coalescing.close()
    assert transport.written == [b"answer"]
    assert transport.is_half_closed
    assert coalescing.is_closing()
    assert not transport.closed
