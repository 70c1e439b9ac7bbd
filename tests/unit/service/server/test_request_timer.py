"""Time limits of a request's parts, and of bodies that arrive slowly, in bursts, or not at all."""

import asyncio
from typing import cast

import pytest

from service.server.request_timer import BODY, HEAD, IDLE, MIN_CHECK_INTERVAL_S, RequestTimer
from tests.unit.service.fakes import ManualLoop

TIMEOUTS_S = {IDLE: 75.0, HEAD: 10.0, BODY: 20.0}
BYTES_PER_S = 1000


class Timeouts:
    """Records which part timed out and when, and whether the service makes the client wait."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.timeouts: list[tuple[str, float]] = []
        self.is_paused = False
        self.timer = RequestTimer(
            cast("asyncio.AbstractEventLoop", self.loop),
            TIMEOUTS_S,
            BYTES_PER_S,
            lambda part: self.timeouts.append((part, self.loop.now_s)),
            lambda: self.is_paused,
        )


@pytest.fixture
def client() -> Timeouts:
    return Timeouts()


@pytest.mark.parametrize("part", TIMEOUTS_S)
def test_each_part_has_its_time(client: Timeouts, part: str) -> None:
    client.timer.start(part)
    client.loop.run_for(1000)
    assert client.timeouts == [(part, TIMEOUTS_S[part])]


def test_the_timeout_of_a_part_is_not_extended(client: Timeouts) -> None:
    for _ in range(5):
        client.timer.start(HEAD)
        client.loop.run_for(3)
    assert client.timeouts == [(HEAD, 10.0)]


def test_another_part_or_request_restarts_the_timeout(client: Timeouts) -> None:
    client.timer.start(HEAD)
    client.loop.run_for(9)
    client.timer.start(IDLE)
    client.loop.run_for(70)
    client.timer.start(HEAD)
    client.loop.run_for(9)
    client.timer.begin_request()
    client.timer.start(HEAD)
    client.loop.run_for(9)
    assert not client.timeouts
    client.timer.cancel()
    client.loop.run_for(1000)
    assert not client.timeouts


def test_a_body_of_the_minimum_rate_is_waited_for(client: Timeouts) -> None:
    client.timer.start(BODY)
    for _ in range(600):
        client.loop.run_for(1)
        client.timer.add_body_bytes(BYTES_PER_S)
    assert not client.timeouts


def test_a_body_of_half_that_rate_ends_after_twice_the_time(client: Timeouts) -> None:
    client.timer.start(BODY)
    for _ in range(60):
        client.loop.run_for(1)
        client.timer.add_body_bytes(BYTES_PER_S // 2)
    ((part, at_s),) = client.timeouts
    assert part is BODY
    assert 38 <= at_s <= 40 + MIN_CHECK_INTERVAL_S


def test_bytes_from_long_ago_do_not_extend_the_timeout(client: Timeouts) -> None:
    """40 connections that sent 15 MB at once and then no more used to occupy 600 MB for an hour."""
    client.timer.start(BODY)
    client.timer.add_body_bytes(15_000_000)
    client.loop.run_for(10_000)
    assert client.timeouts == [(BODY, 20.0)]


def test_paused_time_does_not_count_towards_the_timeout(client: Timeouts) -> None:
    client.is_paused = True
    client.timer.start(BODY)
    client.loop.run_for(110)
    client.is_paused = False
    client.loop.run_for(1000)
    assert client.timeouts == [(BODY, 120.0)]
