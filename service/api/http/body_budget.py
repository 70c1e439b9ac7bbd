"""The bytes of request bodies that this process holds at once, from their arrival until their requests are answered.

Runs on the event loop's thread only, so there are no locks.
"""

from collections.abc import Callable

from starlette.types import Scope

from service.errors import MemoryFull

RESERVATION = "convoy.body_reservation"
"""Key of the scope that holds the request's BodyReservation, once it has a body."""
RETRY_AFTER_S = 1.0
MAX_SMALL_BYTES = 1 << 20
SMALL_DIVISOR = 4
"""Bodies of up to MAX_SMALL_BYTES have this part of the memory for themselves: clients that send large bodies slowly do
not keep out those that send one image."""


class BodyBudget:
    """Bounds the bodies to `limit_bytes` together. Calls `on_rejected` for each body that does not fit."""

    def __init__(self, limit_bytes: int, on_rejected: Callable[[], None]) -> None:
        self.used_bytes = 0
        self._limit_bytes = limit_bytes
        self._on_rejected = on_rejected

    def check(self, scope: Scope, size_bytes: int) -> None:
        """Raises MemoryFull if `size_bytes` more do not fit now. Reserves nothing.

        A body that is larger than the whole budget is accepted while there is no other.
        """
        reservation: BodyReservation | None = scope.get(RESERVATION)
        held_bytes = 0 if reservation is None else reservation.held_bytes
        is_small = held_bytes + size_bytes <= MAX_SMALL_BYTES
        limit_bytes = self._limit_bytes if is_small else self._limit_bytes - self._limit_bytes // SMALL_DIVISOR
        if self.used_bytes > held_bytes and self.used_bytes + size_bytes > limit_bytes:
            self._on_rejected()
            raise MemoryFull("The bodies of other requests fill the memory for bodies.", RETRY_AFTER_S)

    def reserve(self, scope: Scope, size_bytes: int) -> None:
        """Reserves more bytes for the request; `release_body` releases all of them. Raises MemoryFull as `check`."""
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
    """Releases what the request holds. To be called once, when it is over, however it ended."""
    reservation: BodyReservation | None = scope.get(RESERVATION)
    if reservation is not None:
        reservation.release()
