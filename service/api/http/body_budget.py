"""Limits the bytes of request bodies that this process holds, from their arrival until their requests are answered.

Runs only on the event loop's thread, so there are no locks.
"""

from collections.abc import Callable

from starlette.types import Scope

from service.errors import MemoryFull

RESERVATION = "convoy.body_reservation"
"""Key in the ASGI scope for the BodyReservation of a request with a body."""
RETRY_AFTER_S = 1.0
MAX_SMALL_BYTES = 1 << 20
SMALL_DIVISOR = 4
"""This fraction of the memory is reserved for bodies of up to MAX_SMALL_BYTES, so that clients that slowly send large
bodies do not block clients that send one image."""


class BodyBudget:
    """Limits all bodies together to `limit_bytes`. Calls `on_rejected` for each body that does not fit."""

    def __init__(self, limit_bytes: int, on_rejected: Callable[[], None]) -> None:
        self.used_bytes = 0
        self._limit_bytes = limit_bytes
        self._on_rejected = on_rejected

    def check(self, scope: Scope, size_bytes: int) -> None:
        """Raises MemoryFull if `size_bytes` more do not fit now. Reserves nothing.

        A body that is larger than the whole budget is accepted while no other body is held.
        """
        reservation: BodyReservation | None = scope.get(RESERVATION)
        held_bytes = 0 if reservation is None else reservation.held_bytes
        is_small = held_bytes + size_bytes <= MAX_SMALL_BYTES
        limit_bytes = self._limit_bytes if is_small else self._limit_bytes - self._limit_bytes // SMALL_DIVISOR
        if self.used_bytes > held_bytes and self.used_bytes + size_bytes > limit_bytes:
            self._on_rejected()
            raise MemoryFull("The bodies of other requests fill the memory for bodies.", RETRY_AFTER_S)

    def reserve(self, scope: Scope, size_bytes: int) -> None:
        """Reserves more bytes for the request. `release_body` releases all of them. Raises MemoryFull."""
        self.check(scope, size_bytes)
        if RESERVATION not in scope:
            scope[RESERVATION] = BodyReservation(self)
        scope[RESERVATION].held_bytes += size_bytes
        self.used_bytes += size_bytes


class BodyReservation:
    """The bytes that one request holds."""

    __slots__ = ("_budget", "held_bytes")

    def __init__(self, budget: BodyBudget) -> None:
        self.held_bytes = 0
        self._budget = budget

    def release(self) -> None:
        self._budget.used_bytes -= self.held_bytes
        self.held_bytes = 0


def release_body(scope: Scope) -> None:
    """Releases the bytes that the request holds. Must be called once at the end of each request, even if it failed."""
    reservation: BodyReservation | None = scope.get(RESERVATION)
    if reservation is not None:
        reservation.release()
