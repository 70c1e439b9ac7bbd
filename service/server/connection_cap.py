"""Limits the connections of one worker, so that file descriptors are left for models, logs and health checks.

Knows what connections wait for, but is independent of HTTP.
"""

import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

from service.api.http.request_headers import network_of
from service.observability import logs
from service.server.request_timer import BODY, HEAD, IDLE

DEFAULT_MAX_CONNECTIONS = 4096
MIN_CONNECTIONS = 16
RESERVED_FILES = 128
"""File descriptors for all other purposes: libraries, models that are being loaded, logs, a bucket."""
HEALTH_RESERVE = 16
"""Connections beyond the maximum that are accepted for health checks only."""
EVICTED_DIVISOR = 32
LOG_INTERVAL_S = 10.0
UNREAD = "unread"
EVICTION_ORDER = (IDLE, HEAD, BODY, UNREAD)
"""What connections wait for, in the order in which those of one address are closed."""


class ClientWait(NamedTuple):
    """The order in which connections of one address are closed: by `rank` in EVICTION_ORDER, then by the end of their
    time limit."""

    rank: int
    due_s: float


class Evictable(Protocol):
    """A connection that may be closed while it waits for its client. `client` is the client's address and port."""

    @property
    def client(self) -> tuple[str, int] | None: ...

    def client_wait(self) -> ClientWait | None:
        """Returns what the connection waits for; None while the service works for it."""

    def evict(self) -> None:
        """Closes the connection immediately."""


def raise_file_limit() -> None:
    """Raises the soft limit of open files to the hard limit, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            logs.event(logging.WARNING, "the limit of open files stays low", limit=soft, reason=str(error))


def effective_max_connections(configured: int) -> int:
    """Returns `configured`, or DEFAULT_MAX_CONNECTIONS for 0, but not more than the limit of open files allows."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = configured or DEFAULT_MAX_CONNECTIONS
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(MIN_CONNECTIONS, soft - RESERVED_FILES - HEALTH_RESERVE))


class ConnectionCap:
    """Keeps `connections` at or below `max_connections`, by closing connections that wait for their clients."""

    def __init__(
        self,
        max_connections: int,
        connections: Collection[Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._connections: Collection[Evictable] = connections
        self._clock = clock
        self._logged_s = -LOG_INTERVAL_S

    def is_reached(self, count: int) -> bool:
        """Whether `count` connections, including those that are being opened, are the maximum."""
        return count >= self._max_connections

    def is_reserve_full(self, count: int) -> bool:
        """Whether the reserve for health checks is full as well, so that no further connection is accepted."""
        return count >= self._max_connections + HEALTH_RESERVE

    def evict(self) -> bool:
        """Closes connections that wait for their clients. Returns whether any were closed.

        Begins with the address (of IPv6: the /64 network) that has the most of them, so that a client with many
        connections does not close those of the others. Closes a thirty-second of the maximum per call, because each
        call has to check all connections.
        """
        waits = [(connection.client_wait(), connection) for connection in self._connections]
        waiting = sorted(((wait, connection) for wait, connection in waits if wait is not None), key=lambda one: one[0])
        counts = Counter(_address(connection) for _, connection in waiting)
        ranked: list[tuple[int, Evictable]] = []
        for _, connection in waiting:
            ranked.append((counts[_address(connection)], connection))
            counts[_address(connection)] -= 1
        ranked.sort(key=lambda one: -one[0])  # keeps the order of those that leave their addresses the same number
        evicted = ranked[: max(1, self._max_connections // EVICTED_DIVISOR)]
        for _, connection in evicted:
            connection.evict()
        self._log(len(evicted))
        return bool(evicted)

    def _log(self, evicted: int) -> None:
        if self._clock() - self._logged_s >= LOG_INTERVAL_S:
            self._logged_s = self._clock()
            logs.event(logging.WARNING, "too many connections", limit=self._max_connections, closed=evicted)


def _address(connection: Evictable) -> str:
    return network_of(connection.client[0]) if connection.client else ""
