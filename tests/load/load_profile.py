"""The load of one locust run: model, users and duration, as environment variables, and the users at each moment."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PREFIX = "CONVOY_LOAD_"


@dataclass(frozen=True)
class LoadProfile:
    """One run of locust."""

    model: str
    digits: Path
    """File of `images.save`."""
    figures: Path
    """File that the exact figures are written to at the end."""
    users: int
    seconds: int
    requests_per_s_of_user: float = 0.0
    """Each user's pace; 0: the next request follows the answer at once."""

    def to_environment(self) -> dict[str, str]:
        return {PREFIX + name.upper(): str(value) for name, value in vars(self).items()}

    @classmethod
    def from_environment(cls) -> "LoadProfile":
        """Ends the process with a sentence when locust was started by hand."""
        try:
            return cls(
                model=os.environ[PREFIX + "MODEL"],
                digits=Path(os.environ[PREFIX + "DIGITS"]),
                figures=Path(os.environ[PREFIX + "FIGURES"]),
                users=int(os.environ[PREFIX + "USERS"]),
                seconds=int(os.environ[PREFIX + "SECONDS"]),
                requests_per_s_of_user=float(os.environ[PREFIX + "REQUESTS_PER_S_OF_USER"]),
            )
        except KeyError:
            raise SystemExit("Start the load with `make load`, or `make load-ui` for locust's web page.") from None


class Phase(NamedTuple):
    """Ends at `until` (a part of the whole time) with `users` (times the usual number)."""

    name: str
    until: float
    users: float


RAMP = Phase("ramp", 0.25, 1.0)
SPAWN_FACTOR = 5.0  # times the usual users may come or go within a second: a spike is up at once
PHASES = (RAMP, Phase("plateau", 0.55, 1.0), Phase("spike", 0.70, 3.0), Phase("plateau", 1.0, 1.0))


def users_at(elapsed_s: float, total_s: int, users: int) -> tuple[int, float] | None:
    """How many users there should be, and how many may start a second; None when the time is over."""
    fraction = elapsed_s / total_s
    for phase in PHASES:
        if fraction < phase.until:
            user_factor = phase.users * (fraction / RAMP.until if phase is RAMP else 1.0)
            return max(1, round(users * user_factor)), SPAWN_FACTOR * users
    return None
