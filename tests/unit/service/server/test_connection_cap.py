"""With too many connections, waiting ones are closed in order, and health checks have a reserve."""

import logging
import resource
from collections.abc import Iterator

import pytest

from service.server.connection_cap import (
    DEFAULT_MAX_CONNECTIONS,
    HEALTH_RESERVE,
    LOG_INTERVAL_S,
    MIN_CONNECTIONS,
    RESERVED_FILES,
    ClientWait,
    ConnectionCap,
    effective_max_connections,
    raise_file_limit,
)
from tests.unit.service.batching import ManualClock


class Connection:
    """A connection in a given state of waiting for its client."""

    def __init__(self, wait: ClientWait | None, address: str = "::1") -> None:
        self.is_evicted = False
        self.client = (address, 1)
        self._wait = wait

    def client_wait(self) -> ClientWait | None:
        return None if self.is_evicted else self._wait

    def evict(self) -> None:
        self.is_evicted = True


def test_connections_are_closed_by_rank_then_by_due_time() -> None:
    waits = [ClientWait(2, 1.0), None, ClientWait(0, 9.0), ClientWait(0, 3.0), ClientWait(1, 2.0)]
    connections = [Connection(wait) for wait in waits]
    cap = ConnectionCap(5, connections)
    order = []
    while cap.evict():
        order += [at for at, one in enumerate(connections) if one.is_evicted and at not in order]
    assert order == [3, 2, 4, 0]
    assert not connections[1].is_evicted


def test_the_address_with_the_most_connections_loses_them_first() -> None:
    """An attacker's connections wait for bodies, which are closed last."""
    victims = [Connection(ClientWait(0, float(at)), f"victim {at}") for at in range(20)]
    pairs = [Connection(ClientWait(0, 0.0), "two") for _ in range(2)]
    attackers = [Connection(ClientWait(2, 0.0), "attacker") for _ in range(12)]
    cap = ConnectionCap(10 * 32, [*victims, *pairs, *attackers])
    cap.evict()
    assert [sum(one.is_evicted for one in group) for group in (victims, pairs, attackers)] == [0, 0, 10]
    cap.evict()
    assert [sum(one.is_evicted for one in group) for group in (victims, pairs, attackers)] == [7, 2, 11]


def test_an_ipv6_network_counts_as_one_address() -> None:
    """A single host may use all of its addresses."""
    victims = [Connection(ClientWait(0, 0.0), f"192.0.2.{at}") for at in range(20)]
    attackers = [Connection(ClientWait(2, 0.0), f"2001:db8::{at}") for at in range(20)]
    ConnectionCap(19 * 32, [*victims, *attackers]).evict()
    assert [sum(one.is_evicted for one in group) for group in (victims, attackers)] == [0, 19]


def test_a_fraction_of_many_connections_is_closed_at_a_time() -> None:
    connections = [Connection(ClientWait(0, float(at))) for at in range(100)]
    ConnectionCap(96, connections).evict()
    assert [at for at, one in enumerate(connections) if one.is_evicted] == [0, 1, 2]


def test_the_maximum_and_the_reserve_count_what_is_being_opened() -> None:
    cap = ConnectionCap(5, [])
    assert [cap.is_reached(count) for count in (4, 5)] == [False, True]
    assert [cap.is_reserve_full(5 + count) for count in (HEALTH_RESERVE - 1, HEALTH_RESERVE)] == [False, True]


def test_evictions_are_logged_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "convoy")
    clock = ManualClock()
    cap = ConnectionCap(5, [Connection(ClientWait(0, 1.0)) for _ in range(9)], clock)
    for _ in range(3):
        cap.evict()
    clock.now_s += LOG_INTERVAL_S
    cap.evict()
    assert [record.__dict__["fields"] for record in caplog.records] == [{"limit": 5, "closed": 1}] * 2


@pytest.fixture
def file_limit() -> Iterator[tuple[int, int]]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_connections_leave_files_for_the_rest(file_limit: tuple[int, int]) -> None:
    hard = file_limit[1]
    for soft, configured, expected in (
        (1024, 0, 1024 - RESERVED_FILES - HEALTH_RESERVE),
        (1024, 500, 500),
        (1024, 5000, 1024 - RESERVED_FILES - HEALTH_RESERVE),
        (128, 0, MIN_CONNECTIONS),
    ):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert effective_max_connections(configured) == expected


def test_the_default_is_far_below_what_a_large_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft in (1_000_000, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, soft=soft: (soft, soft))
        assert effective_max_connections(0) == DEFAULT_MAX_CONNECTIONS


def test_the_soft_limit_is_raised_to_the_hard_one(file_limit: tuple[int, int]) -> None:
    hard = file_limit[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_limit_that_cannot_be_raised_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(kind: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (200, 300))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_file_limit()
    (record,) = caplog.records
    assert record.__dict__["fields"] == {"limit": 200, "reason": "not allowed"}
