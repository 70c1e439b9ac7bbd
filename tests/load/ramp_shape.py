"""The shape for locust. A file of its own, since locust follows any shape that it finds in a file that it loads."""

from locust import LoadTestShape

from tests.load.load_profile import LoadProfile, users_at

PROFILE = LoadProfile.from_environment()


class RampSpikePlateau(LoadTestShape):
    """Users come gradually, stay, come in a rush of three times as many, and stay again."""

    def tick(self) -> tuple[int, float] | None:
        return users_at(self.get_run_time(), PROFILE.seconds, PROFILE.users)
