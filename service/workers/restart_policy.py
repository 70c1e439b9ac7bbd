"""Decides when and how often a worker that died is restarted.

Independent of processes and clocks: the supervisor passes in times.
"""

MIN_STABLE_S = 10.0
"""A worker that dies sooner than this after its start, or before it has loaded its models, has died early."""
FIRST_RESTART_DELAY_S = 0.5
MAX_RESTART_DELAY_S = 10.0
MAX_EARLY_DEATHS = 5
"""Consecutive early deaths of a worker after which the service exits, because it cannot start here."""


class RestartPolicy:
    """The restarts of one worker: immediate, or after a growing delay if the worker died early."""

    def __init__(self) -> None:
        self.next_start_s = 0.0
        self.early_deaths = 0
        """Number of consecutive early deaths."""
        self._started_s = 0.0

    def record_start(self, now_s: float) -> None:
        self._started_s = now_s

    def record_death(self, now_s: float, *, has_loaded_models: bool) -> None:
        """Schedules the next start. `has_loaded_models` is False for a worker that died while loading."""
        if has_loaded_models and now_s - self._started_s >= MIN_STABLE_S:
            self.early_deaths = 0
            self.next_start_s = now_s
        else:
            self.early_deaths += 1
            delay_s = FIRST_RESTART_DELAY_S * 2 ** min(self.early_deaths - 1, 10)  # 2 ** 1024 overflows a float
            self.next_start_s = now_s + min(MAX_RESTART_DELAY_S, delay_s)

    def is_exhausted(self) -> bool:
        """Whether so many consecutive early deaths have occurred that the worker probably cannot start."""
        return self.early_deaths >= MAX_EARLY_DEATHS
