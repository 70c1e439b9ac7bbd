"""Clients that read fast enough are never reset, however long it takes; slower ones are reset."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from service.server.lingering_close import LingeringClose
from service.server.write_coalescing import CoalescingTransport
from service.server.write_timeout import MIN_CHECK_INTERVAL_S, SlowReaderGuard
from tests.unit.service.fakes import FullTransport, ManualLoop

TIMEOUT_S, BYTES_PER_S = 20.0, 1000


@pytest.fixture
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair()
    with pair[0], pair[1]:
        yield pair


@pytest.fixture
def transport(socket_pair: tuple[socket.socket, socket.socket]) -> FullTransport:
    return FullTransport(socket_pair[0], 100_000)


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def guard(transport: FullTransport, loop: ManualLoop) -> SlowReaderGuard:
    typed_arguments = cast("asyncio.Transport", transport), cast("asyncio.AbstractEventLoop", loop)
    return SlowReaderGuard(*typed_arguments, TIMEOUT_S, BYTES_PER_S)


def test_a_client_that_reads_nothing_is_reset_after_the_timeout(
    guard: SlowReaderGuard, transport: FullTransport, loop: ManualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "convoy")
    guard.watch()
    loop.run_for(TIMEOUT_S - 1)
    assert not transport.aborted
    loop.run_for(1)
    assert transport.aborted
    (record,) = caplog.records
    assert record.getMessage() == "client does not read"
    assert record.__dict__["fields"] == {"client": "192.0.2.1", "bytes": 100_000}
    assert not loop.timers


def test_a_client_that_reads_fast_enough_is_reset_when_it_stops(
    guard: SlowReaderGuard, transport: FullTransport, loop: ManualLoop
) -> None:
    guard.watch()
    for _ in range(90):
        loop.run_for(1)
        transport.waiting -= BYTES_PER_S
    assert not transport.aborted
    loop.run_for(TIMEOUT_S + MIN_CHECK_INTERVAL_S)
    assert transport.aborted


def test_a_client_that_reads_too_slowly_is_reset(
    guard: SlowReaderGuard, transport: FullTransport, loop: ManualLoop
) -> None:
    guard.watch()
    for _ in range(50):
        loop.run_for(1)
        transport.waiting -= BYTES_PER_S // 2
    assert transport.aborted


def test_bytes_that_the_kernel_still_holds_count_too(
    guard: SlowReaderGuard, transport: FullTransport, loop: ManualLoop, socket_pair: tuple[socket.socket, socket.socket]
) -> None:
    server_end, client_end = socket_pair
    transport.waiting, sent_bytes = 0, 10 * BYTES_PER_S
    server_end.sendall(bytes(sent_bytes))
    guard.watch()
    loop.run_for(TIMEOUT_S - 1)
    assert len(client_end.recv(sent_bytes)) == sent_bytes
    loop.run_for(sent_bytes / BYTES_PER_S)
    assert not transport.aborted


def test_the_timeout_restarts_after_all_bytes_were_read(
    guard: SlowReaderGuard, transport: FullTransport, loop: ManualLoop
) -> None:
    guard.watch()
    loop.run_for(TIMEOUT_S - 1)
    guard.stop()
    guard.stop()
    loop.run_for(TIMEOUT_S)
    guard.watch()
    loop.run_for(TIMEOUT_S - 1)
    guard.watch()  # the wait counts from the previous call, not from this call
    assert not transport.aborted
    loop.run_for(1)
    assert transport.aborted


@pytest.mark.parametrize(("waiting", "is_watched"), [(10, True), (0, False)])
@pytest.mark.parametrize("is_sending", [False, True], ids=["done", "sending on"])
def test_a_connection_that_closes_is_watched_while_bytes_wait(
    guard: SlowReaderGuard,
    transport: FullTransport,
    loop: ManualLoop,
    waiting: int,
    is_watched: bool,
    is_sending: bool,
) -> None:
    typed_arguments = cast("asyncio.Transport", transport), cast("asyncio.AbstractEventLoop", loop)
    transport.waiting = waiting
    lingering = LingeringClose(*typed_arguments)
    coalescing = CoalescingTransport(*typed_arguments, guard.watch, lingering, lambda: is_sending)
    coalescing.close()
    assert (transport.closed, transport.is_half_closed) == (not is_sending, is_sending)
    loop.run_for(TIMEOUT_S)
    assert transport.aborted == is_watched
    coalescing.close()
    assert not loop.timers, "a closed connection is not watched"


def test_a_connection_without_unread_bytes_is_no_longer_watched(
    guard: SlowReaderGuard, transport: FullTransport, loop: ManualLoop
) -> None:
    guard.watch()
    loop.run_for(TIMEOUT_S - 1)
    transport.waiting = 0
    loop.run_for(100_000 / BYTES_PER_S + TIMEOUT_S)
    assert not transport.aborted
    assert not loop.timers


def test_bytes_read_long_ago_do_not_extend_the_timeout(
    guard: SlowReaderGuard, transport: FullTransport, loop: ManualLoop
) -> None:
    transport.waiting = 60_000_000
    guard.watch()
    loop.run_for(1)
    transport.waiting = 1_000_000
    loop.run_for(2 * TIMEOUT_S - 2)
    assert not transport.aborted
    loop.run_for(1)
    assert transport.aborted
