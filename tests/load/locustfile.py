"""Users for locust: single images, batches, mixed traffic, and invalid requests among valid ones. Every response is
checked.

`python -m tests.load` starts a service, prepares the digits and runs this file. Its settings are defined in
tests/load/load_profile.py.
"""

import os
import random
from typing import Any

from locust import FastHttpUser, constant, constant_throughput, task

from tests.load import locust_reporting  # noqa: F401  (its listeners print the progress and write the figures)
from tests.load.digit_images import read_digits
from tests.load.load_profile import LoadProfile
from tests.load.traffic import CheckedRequest, Traffic, authorization

PROFILE = LoadProfile.from_environment()
TRAFFIC = Traffic(PROFILE.model, read_digits(PROFILE.digits))
AUTHORIZATION = authorization(os.environ)


class CheckedUser(FastHttpUser):
    """Sends requests and checks the responses."""

    abstract = True
    wait_time = constant_throughput(PROFILE.requests_per_s_of_user) if PROFILE.requests_per_s_of_user else constant(0)

    def send(self, requests: list[CheckedRequest]) -> None:
        request = random.choice(requests)
        with self.client.post(
            request.path,
            name=request.name,
            data=request.body,
            headers={"Content-Type": request.content_type, **AUTHORIZATION},
            catch_response=True,
        ) as reply:
            report_outcome(
                reply,
                f"no response: {reply.error}"
                if not reply.status_code
                else request.check_answer(*status_and_body(reply)),
            )

    def get_checked(self, path: str, name: str) -> None:
        with self.client.get(path, name=name, headers=AUTHORIZATION, catch_response=True) as reply:
            report_outcome(reply, None if reply.status_code == 200 else f"status {reply.status_code}: {reply.error}")


def status_and_body(reply: Any) -> tuple[int, bytes]:
    return reply.status_code, reply.content or b""


def report_outcome(reply: Any, problem: str | None) -> None:
    # locust would count an expected 4xx as a failure, and a wrong label as a success.
    if problem:
        reply.failure(problem)
    else:
        reply.success()


class SingleImages(CheckedUser):
    """Sends one image after another."""

    weight = 4

    @task
    def one(self) -> None:
        self.send(TRAFFIC.singles)


class ImageBatches(CheckedUser):
    """Sends many images per request, as forms and as JSON."""

    weight = 1

    @task
    def batch(self) -> None:
        self.send(TRAFFIC.batches)


class MixedTraffic(CheckedUser):
    """Sends typical traffic: mostly single images, some batches and GET requests."""

    weight = 4

    @task(20)
    def one(self) -> None:
        self.send(TRAFFIC.singles)

    @task(5)
    def one_as_form(self) -> None:
        self.send(TRAFFIC.singles_as_form)

    @task(3)
    def batch(self) -> None:
        self.send(TRAFFIC.batches)

    @task(1)
    def models(self) -> None:
        self.get_checked("/api/v1/models", "GET models")

    @task(1)
    def ready(self) -> None:
        self.get_checked("/health/ready", "GET ready")


class BadAmongGood(CheckedUser):
    """Sends invalid requests of all kinds, which must get their error codes, and valid images in between."""

    weight = 1

    @task(2)
    def good(self) -> None:
        self.send(TRAFFIC.singles)

    @task(2)
    def bad(self) -> None:
        self.send(TRAFFIC.bad)

    @task(1)
    def partly_bad(self) -> None:
        self.send(TRAFFIC.partly_bad)
