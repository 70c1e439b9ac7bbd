"""The load of one locust run: model, users and duration, as environment variables, and the users at each moment."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PREFIX = "CONVOY_LOAD_"


@dataclass(frozen=True)
class LoadProfile:
    """The settings of one run of locust."""

    model: str
    digits: Path
    """File written by `save_digits`."""
    figures: Path
    """File for the exact figures at the end of the run."""
    users: int
    seconds: int
    requests_per_s_of_user: float = 0.0
    """Request rate of each user. 0: the next request follows the response immediately."""

    def to_environment(self) -> dict[str, str]:
        return {PREFIX + name.upper(): str(value) for name, value in vars(self).items()}

    @classmethod
    def from_environment(cls) -> "LoadProfile":
        """Reads the profile. Exits with an explanation if locust was started directly."""
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
    """A phase with `users` times the usual number of users. It ends at `until`, a fraction of the total time."""

    name: str
    until: float
    users: float


RAMP = Phase("ramp", 0.25, 1.0)
SPAWN_FACTOR = 5.0  # times the usual users may start or stop per second, so that a spike is immediate
PHASES = (RAMP, Phase("plateau", 0.55, 1.0), Phase("spike", 0.70, 3.0), Phase("plateau", 1.0, 1.0))


def users_at(elapsed_s: float, total_s: int, users: int) -> tuple[int, float] | None:
    """Returns the number of users, and the number of users that may start per second. Returns None after the end."""
    fraction = elapsed_s / total_s
    for phase in PHASES:
        if fraction < phase.until:
            user_factor = phase.users * (fraction / RAMP.until if phase is RAMP else 1.0)
            return max(1, round(users * user_factor)), SPAWN_FACTOR * users
    return None
