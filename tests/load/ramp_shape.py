"""The load shape for locust. It is in a separate file, because locust uses any shape that a loaded file contains."""

from locust import LoadTestShape

from tests.load.load_profile import LoadProfile, users_at

PROFILE = LoadProfile.from_environment()


class RampSpikePlateau(LoadTestShape):
    """Ramps up the number of users, holds it, spikes to three times the number, and holds again."""

    def tick(self) -> tuple[int, float] | None:
        return users_at(self.get_run_time(), PROFILE.seconds, PROFILE.users)
