"""Limits the bytes of request bodies that this process holds, from their arrival until their requests are answered.

Runs only on the event loop's thread, so there are no locks.
"""

from collections.abc import Callable

from starlette.types import Scope

from service.api.http.request_headers import client_name
from service.errors import MemoryFull

RESERVATION = "convoy.body_reservation"
"""Key in the ASGI scope for the BodyReservation of a request with a body."""
RETRY_AFTER_S = 1.0
MAX_SMALL_BYTES = 1 << 20
SMALL_DIVISOR = 4
"""This fraction of the memory is reserved for bodies of up to MAX_SMALL_BYTES, so that clients that slowly send large
bodies do not block clients that send one image."""
OTHERS_DIVISOR = 3
"""One client leaves this fraction of each part to the others. Otherwise, a client whose compressed bodies of 1 KB wait
for their turn to be decoded would fill the whole memory."""


class BodyBudget:
    """Limits all bodies together to `limit_bytes`, and those of one client to a share of it.

    Calls `on_rejected` for each body that does not fit.
    """

    def __init__(self, limit_bytes: int, on_rejected: Callable[[], None]) -> None:
        self.used_bytes = 0
        self._used_bytes_by_client: dict[str, int] = {}
        self._limit_bytes = limit_bytes
        self._on_rejected = on_rejected

    def check(self, scope: Scope, size_bytes: int) -> None:
        """Raises MemoryFull if `size_bytes` more do not fit now. Reserves nothing.

        A body that is larger than the whole budget is accepted while no other body is held, and one that is larger than
        the client's share while the client has no other body.
        """
        reservation: BodyReservation | None = scope.get(RESERVATION)
        held_bytes = 0 if reservation is None else reservation.held_bytes
        is_small = held_bytes + size_bytes <= MAX_SMALL_BYTES
        limit_bytes = self._limit_bytes if is_small else self._limit_bytes - self._limit_bytes // SMALL_DIVISOR
        if self.used_bytes > held_bytes and self.used_bytes + size_bytes > limit_bytes:
            self._reject("The bodies of other requests fill the memory for bodies.")
        client_bytes = self._used_bytes_by_client.get(client_name(scope), 0)
        if client_bytes > held_bytes and client_bytes + size_bytes > limit_bytes - limit_bytes // OTHERS_DIVISOR:
            self._reject("The bodies of this client's other requests fill its share of the memory for bodies.")

    def reserve(self, scope: Scope, size_bytes: int) -> None:
        """Reserves more bytes for the request. `release_body` releases all of them. Raises MemoryFull."""
        self.check(scope, size_bytes)
        if RESERVATION not in scope:
            scope[RESERVATION] = BodyReservation(self, client_name(scope))
        scope[RESERVATION].held_bytes += size_bytes
        self.add(scope[RESERVATION].client, size_bytes)

    def add(self, client: str, size_bytes: int) -> None:
        """Counts bytes of the client, or no longer counts them if `size_bytes` is negative."""
        self.used_bytes += size_bytes
        client_bytes = self._used_bytes_by_client.pop(client, 0) + size_bytes
        if client_bytes:
            self._used_bytes_by_client[client] = client_bytes

    def _reject(self, reason: str) -> None:
        self._on_rejected()
        raise MemoryFull(reason, RETRY_AFTER_S)


class BodyReservation:
    """The bytes that one request of `client` holds."""

    __slots__ = ("_budget", "client", "held_bytes")

    def __init__(self, budget: BodyBudget, client: str) -> None:
        self.client = client
        self.held_bytes = 0
        self._budget = budget

    def release(self) -> None:
        self._budget.add(self.client, -self.held_bytes)
        self.held_bytes = 0


def release_body(scope: Scope) -> None:
    """Releases the bytes that the request holds. Must be called once at the end of each request, even if it failed."""
    reservation: BodyReservation | None = scope.get(RESERVATION)
    if reservation is not None:
        reservation.release()
