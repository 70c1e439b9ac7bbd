"""The shape of a load over time, as plain numbers: ramp, plateau, spike, plateau."""

from typing import NamedTuple


class Phase(NamedTuple):
    """Ends at `until` (a part of the whole time) with `users` (times the usual number)."""

    name: str
    until: float
    users: float


RAMP = Phase("ramp", 0.25, 1.0)
RUSH = 5.0  # times the usual users may come or go within a second: a spike is up at once
PHASES = (RAMP, Phase("plateau", 0.55, 1.0), Phase("spike", 0.70, 3.0), Phase("plateau", 1.0, 1.0))


def users_at(elapsed_s: float, total_s: int, users: int) -> tuple[int, float] | None:
    """How many users there should be, and how many may start a second; None when the time is over."""
    part = elapsed_s / total_s
    for phase in PHASES:
        if part < phase.until:
            wanted = phase.users * (part / RAMP.until if phase is RAMP else 1.0)
            return max(1, round(users * wanted)), RUSH * users
    return None
