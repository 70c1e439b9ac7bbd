"""Whoever takes what is written to it fast enough is left alone, however long it takes; whoever does not is reset."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from service.joined import JoinedWrites
from service.uptake import CHECK_AGAIN_S, Uptake

PATIENCE_S, BYTES_PER_S = 20.0, 1000


class ManualLoop:
    """Its time passes when the test says so; it has one timer at most."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[ManualTimer] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, seconds: float, callback: Callable[[], None]) -> "ManualTimer":
        assert not self.timers
        self.timers.append(ManualTimer(self, self.now_s + seconds, callback))
        return self.timers[0]

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def run_for(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.timers and self.timers[0].at_s <= end_s:
            timer = self.timers.pop()
            self.now_s = timer.at_s
            timer.callback()
        self.now_s = end_s


class ManualTimer:
    def __init__(self, loop: ManualLoop, at_s: float, callback: Callable[[], None]) -> None:
        self.at_s, self.callback = at_s, callback
        self._loop = loop

    def cancel(self) -> None:
        self._loop.timers.remove(self)


class FullTransport:
    """Holds `waiting` bytes that nobody takes."""

    def __init__(self, sock: socket.socket, waiting: int) -> None:
        self.waiting = waiting
        self.aborted = self.closed = False
        self._extra = {"socket": sock, "peername": ("192.0.2.1", 1234)}

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str) -> Any:
        return self._extra[name]

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair()
    with pair[0], pair[1]:
        yield pair


@pytest.fixture
def transport(ends: tuple[socket.socket, socket.socket]) -> FullTransport:
    return FullTransport(ends[0], 100_000)


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def uptake(transport: FullTransport, loop: ManualLoop) -> Uptake:
    real = cast("asyncio.Transport", transport), cast("asyncio.AbstractEventLoop", loop)
    return Uptake(*real, PATIENCE_S, BYTES_PER_S)


def test_who_takes_nothing_is_reset_when_patience_ends(
    uptake: Uptake, transport: FullTransport, loop: ManualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "convoy")
    uptake.watch()
    loop.run_for(PATIENCE_S - 1)
    assert not transport.aborted
    loop.run_for(1)
    assert transport.aborted
    (record,) = caplog.records
    assert record.getMessage() == "client does not read"
    assert record.__dict__["fields"] == {"client": "192.0.2.1", "bytes": 100_000}
    assert not loop.timers


def test_who_takes_enough_is_waited_for_and_reset_once_it_stops(
    uptake: Uptake, transport: FullTransport, loop: ManualLoop
) -> None:
    uptake.watch()
    for _ in range(90):
        loop.run_for(1)
        transport.waiting -= BYTES_PER_S
    assert not transport.aborted
    loop.run_for(PATIENCE_S + CHECK_AGAIN_S)
    assert transport.aborted


def test_who_takes_too_little_is_reset(uptake: Uptake, transport: FullTransport, loop: ManualLoop) -> None:
    uptake.watch()
    for _ in range(50):
        loop.run_for(1)
        transport.waiting -= BYTES_PER_S // 2
    assert transport.aborted


def test_bytes_that_the_kernel_still_holds_count_too(
    uptake: Uptake, transport: FullTransport, loop: ManualLoop, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    transport.waiting, taken = 0, 10 * BYTES_PER_S
    ours.sendall(bytes(taken))
    uptake.watch()
    loop.run_for(PATIENCE_S - 1)
    assert len(theirs.recv(taken)) == taken
    loop.run_for(taken / BYTES_PER_S)
    assert not transport.aborted


def test_what_was_taken_is_forgotten(uptake: Uptake, transport: FullTransport, loop: ManualLoop) -> None:
    uptake.watch()
    loop.run_for(PATIENCE_S - 1)
    uptake.stop()
    uptake.stop()
    loop.run_for(PATIENCE_S)
    uptake.watch()
    loop.run_for(PATIENCE_S - 1)
    uptake.watch()  # it waits since then, not since now
    assert not transport.aborted
    loop.run_for(1)
    assert transport.aborted


@pytest.mark.parametrize(("waiting", "watched"), [(10, True), (0, False)])
def test_a_connection_that_closes_is_watched_while_bytes_wait(
    uptake: Uptake, transport: FullTransport, loop: ManualLoop, waiting: int, watched: bool
) -> None:
    real = cast("asyncio.Transport", transport), cast("asyncio.AbstractEventLoop", loop)
    transport.waiting = waiting
    joined = JoinedWrites(*real, uptake.watch)
    joined.close()
    assert transport.closed
    loop.run_for(PATIENCE_S)
    assert transport.aborted == watched
    joined.close()
    assert not loop.timers, "what is gone is not watched"
