"""What `python -m tests.load` tells the locust process, through its environment."""

import os
from dataclasses import dataclass
from pathlib import Path

PREFIX = "CONVOY_LOAD_"


@dataclass(frozen=True)
class Orders:
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
    def from_environment(cls) -> "Orders":
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
